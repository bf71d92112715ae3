//! A machine of a test's own, with a real systemd as PID 1 and Debian 12's own kernel, in qemu. It knows nothing of what is run in it.
//!
//! A container would not do: in its PID namespace the numbers that the kernel's programs tell are not those of its /proc.

mod image;

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub use image::VENV;
use image::{Image, disk};

use crate::deadline;

/// Emulated and beside other tests.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
const LIMIT_S: u64 = 120;

/// A machine that runs; ended when dropped, and what was written to its disk is gone.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    channel: BufReader<UnixStream>,
    folder: TempDir,
    /// How it is run: `kvm`, or `tcg` (emulated).
    pub accelerator: &'static str,
}

/// What a script wrote, and how it ended.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    /// Its exit status; 124 when it took too long.
    pub status: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

#[derive(Serialize)]
struct Request<'a> {
    user: &'a str,
    script: &'a str,
    limit_s: u64,
}

impl Machine {
    /// Boots one, in which what is in the folder can be read at `/mnt`.
    pub fn boot(files: &Path) -> Result<Self> {
        let image = Image::ensure()?;
        let folder = tempfile::Builder::new().prefix("observer-machine-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        disk(files, &at("files"), size_mib(files)? * 5 / 4 + 64)?;
        let accelerator = accelerator();
        let listener = UnixListener::bind(at("channel")).context("cannot make the machine's channel")?;
        listener.set_nonblocking(true)?;
        let drive = |path: &Path, rest: &str| format!("file={},if=virtio,format=raw,{rest}", path.display());
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-smp", "2", "-m", "1536"])
            .args(["-accel", accelerator, "-cpu", if accelerator == "kvm" { "host" } else { "max" }])
            .arg("-kernel")
            .arg(image.kernel())
            .arg("-initrd")
            .arg(image.initrd())
            // Lockdown as with Secure Boot, for that is what most machines have.
            .args(["-append", "root=/dev/vda rw console=ttyS0 panic=-1 lockdown=integrity"])
            .args(["-drive", &drive(&image.disk(), "snapshot=on,cache=unsafe")])
            .args(["-drive", &drive(&at("files"), "readonly=on")])
            .args(["-serial", &format!("file:{}", at("console").display())])
            .args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=agent"])
            .args(["-chardev", &format!("socket,id=agent,path={}", at("channel").display())])
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(at("qemu"))?)
            .spawn()
            .context("cannot run qemu-system-x86_64")?;
        let connected = deadline::poll("qemu connects to its channel", Duration::from_secs(60), || {
            let ended = qemu.try_wait().ok().flatten().is_some();
            listener.accept().ok().map(|(stream, _)| Some(stream)).or_else(|| ended.then_some(None))
        });
        let Some(stream) = connected? else {
            bail!("qemu ended at once: {}", fs::read_to_string(at("qemu")).unwrap_or_default().trim());
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(BOOT_LIMIT))?;
        let mut machine = Self { qemu, channel: BufReader::new(stream), folder, accelerator };
        machine.line().context("the machine does not boot")?;
        machine.check("root", "mount -o ro /dev/vdb /mnt")?;
        Ok(machine)
    }

    /// Runs a shell script as this user, with their login environment.
    pub fn run(&mut self, user: &str, script: &str) -> Result<Answer> {
        let request = serde_json::to_string(&Request { user, script, limit_s: LIMIT_S })? + "\n";
        self.channel.get_ref().set_read_timeout(Some(Duration::from_secs(LIMIT_S + 60)))?;
        self.channel.get_mut().write_all(request.as_bytes()).context("cannot reach the machine")?;
        let line = self.line().with_context(|| format!("as {user}: {script}"))?;
        serde_json::from_str(&line).with_context(|| format!("the machine answered: {line}"))
    }

    /// [`Self::run`] for what must succeed: its standard output.
    pub fn check(&mut self, user: &str, script: &str) -> Result<String> {
        let answer = self.run(user, script)?;
        if answer.status != 0 {
            bail!("as {user}: {script}\nexit status {}\n{}{}", answer.status, answer.out, answer.err);
        }
        Ok(answer.out)
    }

    /// What the machine has said on its console.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.folder.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.channel.read_line(&mut line);
        if !matches!(read, Ok(length) if length > 0) {
            let console = self.console();
            let lines: Vec<&str> = console.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            bail!(
                "no answer from the machine ({}): {read:?}; its console ends so:\n{}",
                self.accelerator,
                last.join("\n")
            );
        }
        Ok(line)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// KVM where the processor has it. A /dev/kvm without that (kvm-pvm, in some clouds) runs only kernels made for it, and Debian's is not.
fn accelerator() -> &'static str {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let hardware = flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    let may = fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if hardware && may { "kvm" } else { "tcg" }
}

fn size_mib(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            size_mib(&entry.path())? << 20
        } else {
            fs::metadata(entry.path())?.len()
        };
    }
    Ok(bytes.div_ceil(1 << 20))
}
