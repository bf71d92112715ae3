//! The machine's disk: a Debian 12 with systemd, a kernel of its own and a Python environment with dramatiq, made once and kept in the cache.
//! It boots nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::apt::{self, Package};
use crate::cache;
use crate::venv::{REQUIREMENTS, fnv1a};

const PACKAGES: &[Package] = &[
    Package::new("qemu-system-x86", "runs the machine in which the service is tested"),
    Package::new("seabios", "qemu boots it"),
    Package::new("mmdebstrap", "makes that machine's system"),
    Package::new("e2fsprogs", "makes that machine's disks"),
    Package::new("python3", "makes a Python environment for it"),
];

/// What is in the system beside Debian's essential packages.
const INSIDE: &str = "systemd-sysv,dbus,udev,kmod,procps,init-system-helpers,python3,python3-venv,linux-image-cloud-amd64,initramfs-tools,\
                      ca-certificates,man-db,bash-completion";

/// Where the worker's interpreter is, inside.
pub const VENV: &str = "/opt/worker";

const AGENT: &str = include_str!("agent.py");
const AGENT_UNIT: &str =
    "[Service]\nExecStart=/usr/bin/python3 /usr/lib/lab-agent.py\n[Install]\nWantedBy=multi-user.target\n";

/// What a machine boots from.
#[derive(Clone, Debug)]
pub(super) struct Image {
    folder: PathBuf,
}

impl Image {
    /// The one in the cache, made when it is not there yet: about 80 s.
    pub(super) fn ensure() -> Result<Self> {
        apt::ensure(PACKAGES)?;
        let key = fnv1a([INSIDE, AGENT, AGENT_UNIT, REQUIREMENTS, VENV].join("\n").as_bytes());
        let cache = cache::dir();
        fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let folder = cache.join(format!("machine-{key:016x}"));
        let lock = folder.with_extension("lock");
        let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
        lock.lock().context("cannot lock the machine's image")?;
        if !folder.exists() {
            eprintln!("make {}: Debian 12 with systemd and a kernel (about 80 s)", folder.display());
            // It gets its name when it is whole.
            let scratch = tempfile::Builder::new().prefix("machine-").tempdir_in(&cache)?;
            make(scratch.path())?;
            fs::rename(scratch.path().join("image"), &folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(Self { folder })
    }

    pub(super) fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    pub(super) fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    pub(super) fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }
}

fn make(scratch: &Path) -> Result<()> {
    let (tree, image) = (scratch.join("tree"), scratch.join("image"));
    fs::create_dir(&image)?;
    run(Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase"])
        .arg(format!("--include={INSIDE}"))
        // Only these few are loaded: the initrd is a third of what it would be, and so is the time to unpack it.
        .args(["--essential-hook=mkdir -p \"$1/etc/initramfs-tools/conf.d\"; echo MODULES=list > \"$1/etc/initramfs-tools/conf.d/lab\""])
        .args(["--essential-hook=printf 'virtio_pci\\nvirtio_blk\\next4\\n' > \"$1/etc/initramfs-tools/modules\""])
        .arg("bookworm")
        .arg(&tree))?;
    let inside = |path: &str| tree.join(path.trim_start_matches('/'));
    fs::write(inside("/usr/lib/lab-agent.py"), AGENT)?;
    fs::write(inside("/etc/systemd/system/lab-agent.service"), AGENT_UNIT)?;
    fs::write(inside("/etc/hostname"), "machine\n")?;
    fs::write(inside("/etc/hosts"), "127.0.0.1 localhost machine\n")?;
    environment(scratch, &tree)?;
    // No login on the console, and no upgrades of its own accord.
    let idle = [
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "e2scrub_all.timer",
        "e2scrub_reap.service",
        "man-db.timer",
        "getty@tty1.service",
    ];
    run(Command::new("systemctl").arg("--root").arg(&tree).arg("mask").args(idle))?;
    run(Command::new("systemctl").arg("--root").arg(&tree).args(["enable", "lab-agent.service"]))?;
    fs::copy(boot_file(&tree, "vmlinuz-")?, image.join("vmlinuz"))?;
    fs::copy(boot_file(&tree, "initrd.img-")?, image.join("initrd"))?;
    disk(&tree, &image.join("disk"), 2048)
}

/// dramatiq and pika for Debian's Python, at the place where they will be: what pip puts into an environment names its interpreter.
fn environment(scratch: &Path, tree: &Path) -> Result<()> {
    run(Command::new("chroot").arg(tree).args(["python3", "-m", "venv", VENV]))?;
    let (list, wheels) = (scratch.join("requirements.txt"), scratch.join("wheels"));
    fs::write(&list, REQUIREMENTS)?;
    let python = crate::venv::Venv::ensure()?.python();
    run(Command::new(python)
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--only-binary=:all:",
            "--python-version=3.11",
            "--requirement",
        ])
        .arg(&list)
        .arg("--dest")
        .arg(&wheels))?;
    run(Command::new("cp").arg("-r").arg(&wheels).arg(&list).arg(tree.join("mnt")))?;
    run(Command::new("chroot")
        .arg(tree)
        .args(["env", "-i", "PATH=/usr/bin:/bin"])
        .arg(format!("{VENV}/bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--find-links=/mnt/wheels",
            "--requirement=/mnt/requirements.txt",
        ]))?;
    fs::remove_dir_all(tree.join("mnt/wheels"))?;
    fs::remove_file(tree.join("mnt/requirements.txt"))?;
    Ok(())
}

/// A file system image of so many MiB, sparse, that holds what is in a folder.
pub(super) fn disk(folder: &Path, image: &Path, mib: u64) -> Result<()> {
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
        .arg(folder)
        .arg(image)
        .arg(format!("{mib}M"))
        // Where a user's PATH has no /sbin.
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin"))
}

fn boot_file(tree: &Path, prefix: &str) -> Result<PathBuf> {
    let boot = tree.join("boot");
    let entries = boot.read_dir().with_context(|| format!("cannot read {}", boot.display()))?;
    let found = entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    found.map(|entry| entry.path()).with_context(|| format!("there is no {}/{prefix}…", boot.display()))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
