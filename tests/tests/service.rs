//! The service as its Debian package installs it, under a systemd that is PID 1, on Debian 12's own kernel: from installation to purge.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tests::machine::{Answer, Machine, VENV};
use tests::{deadline, privilege, target};

/// Its own, of `daemon::journal`: a worker ended.
const ENDED: &str = "MESSAGE_ID=e041c3e494ca45aabdd6b1c01bd21b3b";
const LIMIT: Duration = Duration::from_secs(90);

/// A worker whose module does not exist, as a unit of its own, and two users of whom one owns it.
const WORKER: &str = "useradd --create-home --shell /bin/sh shop; useradd --create-home --shell /bin/sh other
    useradd --create-home --shell /bin/sh --groups observer watcher
    mkdir -p /srv/shop; chmod 755 /srv/shop
    printf '[Service]\nUser=shop\nWorkingDirectory=/srv/shop\nExecStart=VENV/bin/python -m dramatiq orders\n' > /etc/systemd/system/shop.service
    systemctl daemon-reload";

#[test]
fn debians_own_kernel_takes_the_programs_and_they_see_a_command() {
    let Some(mut machine) = booted() else { return };
    let kernel =
        machine.check("root", "uname -r; cat /proc/1/comm; cat /sys/kernel/security/lockdown").unwrap();
    assert!(
        kernel.starts_with("6.1.") && kernel.contains("\nsystemd\n") && kernel.contains("[integrity]"),
        "{kernel}"
    );
    machine
        .check("root", "dpkg-deb -x /mnt/observer.deb /tmp/x && cp /tmp/x/usr/bin/observer /usr/local/bin/")
        .unwrap();
    let attach =
        "observer --state-dir /tmp/s attach --backend ebpf --cmd \"python3 -c 'import json; print(41 + 1)'\"";
    let answer = machine.run("root", attach).unwrap();
    assert!(answer.status == 0 && answer.out.starts_with("42\n"), "{attach}: {}", told(&answer));
    let imports = machine.check("root", "observer --state-dir /tmp/s show @ --imports").unwrap();
    assert!(imports.contains("json.decoder"), "{imports}");
}

#[test]
fn the_service_lives_through_its_package() {
    let Some(mut machine) = booted() else { return };
    let mut yes = |claim: &str, script: &str| {
        let answer = machine.run("root", script).unwrap();
        assert!(answer.status == 0, "{claim}: {script}: {}", told(&answer));
        answer.out
    };
    yes("it installs", "dpkg -i /mnt/observer.deb");
    yes("it runs", "systemctl is-active observer");
    yes("it starts at boot", "systemctl is-enabled observer");
    let warned = yes("its unit is right", "systemd-analyze verify observer.service 2>&1");
    assert_eq!(warned, "", "systemd-analyze verify");
    yes("its unit is hardened", "systemd-analyze security --no-pager --threshold=20 observer.service");
    let users =
        yes("it has a folder for users' sessions", "stat --format='%U:%G %a' /var/lib/observer/users");
    assert_eq!(users, "root:observer 2751\n");
    yes("it answers", "observer status");
    let before = yes("it has a process", "systemctl show --property=MainPID observer");
    yes("it takes the configuration again", "systemctl reload observer && systemctl is-active observer");
    assert_eq!(
        yes("the same process", "systemctl show --property=MainPID observer"),
        before,
        "after a reload"
    );
    let watched = "systemctl show --property=WatchdogTimestampMonotonic --value observer";
    let first = yes("it has a watchdog", watched);
    deadline::until("the watchdog is told again", LIMIT, || {
        let later = yes("it has a watchdog", watched);
        (later.trim() != "0" && later != first).then_some(())
    });

    yes("there is a worker", &WORKER.replace("VENV", VENV));
    yes("the worker starts", "systemctl start shop");
    let entry = deadline::until("the journal tells of the worker's end", LIMIT, || {
        let entry =
            yes("there is a journal", &format!("journalctl --quiet --output=json --no-pager {ENDED}"));
        serde_json::from_str::<Value>(entry.lines().next()?).ok()
    });
    assert_eq!(entry["OBSERVER_CODE"], "module-not-found", "{entry}");
    assert_eq!(entry["OBSERVER_UNIT"], "shop.service", "{entry}");
    let session = entry["OBSERVER_SESSION"].as_str().unwrap_or_default().to_owned();

    let verdict = machine.check("shop", &format!("observer explain --format json {session}")).unwrap();
    let verdict: Value = serde_json::from_str(&verdict).unwrap();
    assert_eq!(verdict["verdict"]["code"], "module-not-found", "{verdict}");
    assert!(sessions(&mut machine, "shop").unwrap().contains(&session), "its owner finds it");
    assert!(!sessions(&mut machine, "other").unwrap().contains(&session), "another user does not");
    let path = entry["OBSERVER_PATH"].as_str().unwrap_or_default();
    let read = machine.run("other", &format!("cat {path}")).unwrap();
    assert!(
        read.status != 0 && read.err.contains("Permission denied"),
        "another user reads it: {}",
        told(&read)
    );
    machine.check("watcher", &format!("cat {path} > /dev/null")).unwrap();

    let mut yes = |claim: &str, script: &str| {
        let answer = machine.run("root", script).unwrap();
        assert!(answer.status == 0, "{claim}: {script}: {}", told(&answer));
        answer.out
    };
    yes("it upgrades", "dpkg -i /mnt/observer.deb");
    yes("it runs on", "systemctl is-active observer");
    assert_ne!(
        yes("another process", "systemctl show --property=MainPID observer"),
        before,
        "after an upgrade"
    );
    yes("sessions are kept", &format!("test -s {path}"));
    yes("it is purged", "dpkg --purge observer 2>&1");
    let left = yes(
        "nothing is left",
        "ls -d /var/lib/observer /etc/observer /run/observer /usr/bin/observer /usr/share/doc/observer /lib/systemd/system/observer.service \
         /etc/systemd/system/multi-user.target.wants/observer.service 2>/dev/null; getent group observer; \
         systemctl list-units --all --no-legend 'observer*'; true",
    );
    assert_eq!(left, "", "after a purge");
}

fn booted() -> Option<Machine> {
    if privilege::lacking("it makes a Debian system to boot") {
        return None;
    }
    let booted = boot();
    assert!(booted.is_ok(), "{booted:?}");
    booted.ok()
}

fn boot() -> Result<Machine> {
    let files = tempfile::tempdir()?;
    fs::copy(target::package()?, files.path().join("observer.deb"))?;
    let machine = Machine::boot(files.path())?;
    eprintln!("machine by {}", machine.accelerator);
    Ok(machine)
}

fn sessions(machine: &mut Machine, user: &str) -> Result<Vec<String>> {
    let listed: Value = serde_json::from_str(&machine.check(user, "observer ls --format json")?)?;
    let all = listed["sessions"].as_array().into_iter().flatten();
    Ok(all.filter_map(|session| Some(session["id"].as_str()?.to_owned())).collect())
}

fn told(answer: &Answer) -> String {
    format!("exit status {}\n{}{}", answer.status, answer.out, answer.err)
}
