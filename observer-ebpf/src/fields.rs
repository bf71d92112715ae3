//! The kernel fields the programs follow. Knows their names; where they stand is the running kernel's to say.

/// In place of an offset or a length: there is no such thing.
pub const ABSENT: u32 = u32::MAX;

/// Declares the kernel fields the programs follow, once: the struct that carries their offsets, and the names to look them up by.
macro_rules! kernel_fields {
    ($($name:ident: $owner:ident $member:literal,)*) => {
        /// Byte offsets of kernel fields, taken from the running kernel's BTF by the user half and handed over as the global
        /// `KERNEL` before loading: what CO-RE does for C.
        #[repr(C)]
        #[derive(Clone, Copy)]
        #[cfg_attr(not(target_arch = "bpf"), derive(Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
        pub struct Kernel { $(#[doc = concat!("`", stringify!($owner), ".", $member, "`")] pub $name: u32,)* }

        /// Structure and member of each field of [`Kernel`], in its order. `a|b` is whichever of the two there is; `a|` may be missing,
        /// and then stands at [`ABSENT`].
        pub const KERNEL_FIELDS: &[(&str, &str)] = &[$((stringify!($owner), $member),)*];
        const _: () = assert!(size_of::<Kernel>() == 4 * KERNEL_FIELDS.len());
    };
}

kernel_fields! {
    task_tgid: task_struct "tgid",
    task_pid: task_struct "pid",
    task_mm: task_struct "mm",
    task_fs: task_struct "fs",
    task_files: task_struct "files",
    task_signal: task_struct "signal",
    task_cred: task_struct "cred",
    task_real_parent: task_struct "real_parent",
    task_group_leader: task_struct "group_leader",
    task_exit_code: task_struct "exit_code",
    task_status: task_struct "thread_info.status",
    signal_live: signal_struct "live",
    signal_flags: signal_struct "flags",
    signal_group_exit_code: signal_struct "group_exit_code",
    signal_tty: signal_struct "tty",
    signal_rlim: signal_struct "rlim",
    tty_name: tty_struct "name",
    mm_arg_start: mm_struct "arg_start",
    mm_arg_end: mm_struct "arg_end",
    mm_env_start: mm_struct "env_start",
    mm_env_end: mm_struct "env_end",
    mm_exe_file: mm_struct "exe_file",
    mm_flags: mm_struct "flags|",
    task_cgroups: task_struct "cgroups|",
    css_set_cgroup: css_set "dfl_cgrp|",
    cgroup_node: cgroup "kn|",
    node_name: kernfs_node "name|",
    node_parent: kernfs_node "parent|__parent|",
    bprm_filename: linux_binprm "filename",
    bprm_argc: linux_binprm "argc",
    bprm_envc: linux_binprm "envc",
    cred_uid: cred "uid",
    cred_gid: cred "gid",
    cred_euid: cred "euid",
    cred_egid: cred "egid",
    cred_group_info: cred "group_info",
    group_info_ngroups: group_info "ngroups",
    group_info_gid: group_info "gid",
    fs_umask: fs_struct "umask",
    fs_root: fs_struct "root",
    fs_pwd: fs_struct "pwd",
    path_mnt: path "mnt",
    path_dentry: path "dentry",
    vfsmount_root: vfsmount "mnt_root",
    mount_mnt: mount "mnt",
    mount_parent: mount "mnt_parent",
    mount_mountpoint: mount "mnt_mountpoint",
    dentry_parent: dentry "d_parent",
    dentry_name: dentry "d_name.name",
    files_fdt: files_struct "fdt",
    fdt_max_fds: fdtable "max_fds",
    fdt_fd: fdtable "fd",
    file_inode: file "f_inode",
    file_path: file "f_path",
    file_private_data: file "private_data",
    inode_ino: inode "i_ino",
    inode_mode: inode "i_mode",
    inode_rdev: inode "i_rdev",
    inode_sb: inode "i_sb",
    sb_dev: super_block "s_dev",
    socket_sk: socket "sk",
    socket_file: socket "file",
    sock_socket: sock "sk_socket",
    sock_err: sock "sk_err",
    sock_protocol: sock "sk_protocol",
    skc_family: sock_common "skc_family",
    skc_num: sock_common "skc_num",
    skc_dport: sock_common "skc_dport",
    skc_daddr: sock_common "skc_daddr",
    skc_rcv_saddr: sock_common "skc_rcv_saddr",
    skc_v6_daddr: sock_common "skc_v6_daddr",
    skc_v6_rcv_saddr: sock_common "skc_v6_rcv_saddr",
    si_code: kernel_siginfo "si_code",
}
