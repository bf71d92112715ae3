//! What is to be recorded of a program that fits a rule, and whose it is. Knows what a program was started with; nothing of who records it.

use crate::{
    daemon::{kernel, plan::Plan, settings::Rule},
    event::{Event, Exec, Known},
    session,
    source::proc,
};

/// What is recorded by a rule.
pub(super) fn plan(rule: &Rule, event: &Event, exec: &Exec) -> Result<Plan, String> {
    let command = match &exec.argv {
        Known::Is(words) | Known::Partial { partial: words, .. } => words.clone(),
        Known::Absent { .. } => Vec::new(),
    };
    let owner = owner_of(exec);
    Ok(Plan {
        id: session::new_id().map_err(|error| format!("cannot name a session: {error}"))?,
        name: rule.session.clone().unwrap_or_else(|| session::name_of(&command)),
        uid: owner.0,
        gid: owner.1,
        root: event.pid,
        root_ticks: proc::start_ticks(event.pid.0).unwrap_or(0),
        command,
        attached: false,
        began_ns: event.at_ns,
        unit: kernel::unit_of(exec),
        rule: Some(rule.name.clone()),
        keep: rule.keep,
        limit: rule.limit,
        broker: rule.broker.clone(),
        management: rule.management.clone(),
        firehose: false,
        bodies: false,
    })
}

/// User and group whose a program that was executed is: of somebody who became another user by that, or got rights, it is root's.
pub(super) fn owner_of(exec: &Exec) -> (u32, u32) {
    let user = exec.user.get().filter(|user| is_owners(exec, user.uid));
    user.map_or((0, 0), |user| (user.uid, user.gid))
}

/// Whether a program that was executed is one that its user `uid` may look into: what makes somebody another user, or has rights that
/// they do not have, is not theirs. Root may look into everything.
pub(super) fn is_owners(exec: &Exec, uid: u32) -> bool {
    if uid == 0 {
        return true;
    }
    let same =
        exec.user.get().is_some_and(|user| user.uid == uid && user.euid == uid && user.gid == user.egid);
    same && kernel::is_dumpable(exec)
}
