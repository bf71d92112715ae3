//! Which programs are to be tracked from their start: how a rule is written, and what the kernel half gets for it. Knows globs; nothing of
//! what becomes of who is tracked, nor where rules come from.
//!
//! The kernel half and [`ExecRule::fits`] run the same steps over the same bytes (`observer_ebpf::glob`).

use observer_ebpf::{
    glob::{ANY, Glob, ONE, RUN, answer},
    rule::{RULE_ARGS_MAX, RULE_BYTES, RULES_MAX, Rule, Rules, flag, pattern},
};
use zerocopy::FromZeros;

use crate::{event::Exec, source::SourceError};

/// Programs to be tracked from their start. What is not said fits everything; one of `exe` and `args` must be said.
///
/// The texts are globs: `*` is any run of bytes within one word, or one component of a path, `?` one such byte, and `\` takes its meaning
/// from the character after it. All else stands for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRule {
    /// What [`Exec::rule`] says of the programs that fit; at least 1.
    pub id: u32,
    /// The name of the file that was given to `execve` (for a `#!` script the script) or of the executable (its interpreter). With a `/` the
    /// whole path of either, which then begins with one. A relative path is taken from the working directory; `.` is left out, `..` and
    /// links are as they were given.
    pub exe: Option<String>,
    /// Words that stand one after another anywhere in the command line, within its first 8 KiB.
    pub args: Vec<String>,
    /// Real user id, as the machine knows it.
    pub uid: Option<u32>,
    /// One component of the path of its cgroup (version 2), so a systemd unit or slice.
    pub unit: Option<String>,
    /// The whole path of its cgroup, from the root of the hierarchy. What ends in `*` fits all that is below as well.
    pub cgroup: Option<String>,
}

/// Why a text is no pattern.
type Refused = &'static str;

/// One word or component, without the NULs around it.
fn word(glob: &str, into: &mut Vec<u8>) -> Result<(), Refused> {
    let mut bytes = glob.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            0 => return Err("it holds a NUL, which no word does"),
            b'*' if into.last() == Some(&RUN) => {}
            b'*' => into.push(RUN),
            b'?' => into.push(ONE),
            b'\\' => into.push(bytes.next().ok_or("nothing follows its last \\")?),
            byte => into.push(byte),
        }
    }
    Ok(())
}

/// A path, leaf first. `below`: what a `*` at its end fits goes on below.
fn path(glob: &str, below: bool) -> Result<Vec<u8>, Refused> {
    let relative = glob.strip_prefix('/').ok_or("a path begins with /")?;
    let mut pattern = Vec::new();
    if below && glob.ends_with('*') && !glob.ends_with("\\*") {
        pattern.push(ANY);
    }
    pattern.push(0);
    // The root has no components.
    for component in relative.split('/').rev().filter(|_| !relative.is_empty()) {
        if component.is_empty() {
            return Err("a component of the path is empty");
        }
        word(component, &mut pattern)?;
        pattern.push(0);
    }
    Ok(pattern)
}

fn exe(glob: &str) -> Result<Vec<u8>, Refused> {
    if glob.is_empty() {
        return Err("it is empty");
    }
    if glob.contains('/') {
        return path(glob, false);
    }
    let mut pattern = vec![0];
    word(glob, &mut pattern)?;
    pattern.extend([0, ANY]);
    Ok(pattern)
}

fn args(globs: &[String]) -> Result<Vec<u8>, Refused> {
    let mut pattern = vec![ANY, 0];
    for glob in globs {
        word(glob, &mut pattern)?;
        pattern.push(0);
    }
    pattern.push(ANY);
    Ok(pattern)
}

fn unit(glob: &str) -> Result<Vec<u8>, Refused> {
    if glob.is_empty() {
        return Err("it is empty");
    }
    if glob.contains('/') {
        return Err("it is one component, without /; a path is a matter of `cgroup`");
    }
    let mut pattern = vec![ANY, 0];
    word(glob, &mut pattern)?;
    pattern.extend([0, ANY]);
    Ok(pattern)
}

fn refused(rule: &ExecRule, what: &str, glob: &str, why: &str) -> SourceError {
    SourceError {
        attempted: format!("cannot use rule {}, {what} {glob:?}", rule.id),
        answer: why.to_owned(),
        next: "correct the rule".to_owned(),
    }
}

impl ExecRule {
    fn compile(&self) -> Result<Rule, SourceError> {
        if self.id == 0 {
            return Err(refused(self, "id", "0", "0 means no rule"));
        }
        if self.exe.is_none() && self.args.is_empty() {
            return Err(refused(self, "exe and args", "", "one of them must be said"));
        }
        let mut rule = Rule::new_zeroed();
        rule.id = self.id;
        if let Some(uid) = self.uid {
            rule.uid = uid;
            rule.flags |= flag::UID;
        }
        let words = (!self.args.is_empty()).then(|| self.args.join(" "));
        let mut end = 0;
        for (which, name, text) in [
            (pattern::EXE, "exe", self.exe.as_deref()),
            (pattern::ARGS, "args", words.as_deref()),
            (pattern::UNIT, "unit", self.unit.as_deref()),
            (pattern::CGROUP, "cgroup", self.cgroup.as_deref()),
        ] {
            let bytes = match (which, text) {
                (_, None) => Ok(Vec::new()),
                (pattern::EXE, Some(glob)) => exe(glob),
                (pattern::ARGS, Some(_)) => args(&self.args),
                (pattern::UNIT, Some(glob)) => unit(glob),
                (_, Some(glob)) => path(glob, true),
            };
            let text = text.unwrap_or_default();
            let bytes = bytes.map_err(|why| refused(self, name, text, why))?;
            let start = end;
            end += bytes.len();
            let too_long = || {
                let why = format!("the patterns of a rule have {RULE_BYTES} bytes between them");
                refused(self, name, text, &format!("it is too long: {why}"))
            };
            rule.bytes.get_mut(start..end).ok_or_else(too_long)?.copy_from_slice(&bytes);
            rule.ends[which] = end as u32;
        }
        Ok(rule)
    }

    fn asks_for_path(&self) -> bool {
        self.exe.as_ref().is_some_and(|exe| exe.contains('/'))
    }

    /// Whether a program that was started fits, as far as the event says what the rule asks for: for those that run already when rules are
    /// set, which the kernel half did not see start.
    ///
    /// # Errors
    /// When the rule is none; the text says why.
    pub fn fits(&self, exec: &Exec) -> Result<bool, SourceError> {
        let rule = self.compile()?;
        let like = |which: usize, text: &[u8]| {
            let start = if which == 0 { 0 } else { rule.ends[which - 1] as usize };
            let pattern = rule.bytes.get(start..rule.ends[which] as usize).unwrap_or_default();
            pattern.is_empty() || is_like(pattern, text)
        };
        let uid = exec.user.get().map(|user| user.uid);
        if self.uid.is_some() && self.uid != uid {
            return Ok(false);
        }
        let cwd = exec.cwd.get().map_or("", String::as_str);
        let given = exec
            .path
            .get()
            .map(|path| if path.starts_with('/') { path.clone() } else { format!("{cwd}/{path}") });
        let executable = exec.exe.get().and_then(|exe| exe.path.get().cloned());
        let mut names = given.into_iter().chain(executable);
        if self.exe.is_some() && !names.any(|name| like(pattern::EXE, &leaf_first(&name))) {
            return Ok(false);
        }
        let mut words = vec![0];
        for argument in exec.argv.get().into_iter().flatten() {
            words.extend(argument.bytes().chain([0]));
        }
        words.truncate(1 + RULE_ARGS_MAX);
        let cgroup = exec.cgroup.get().map_or_else(Vec::new, |path| leaf_first(path));
        Ok(like(pattern::ARGS, &words) && like(pattern::UNIT, &cgroup) && like(pattern::CGROUP, &cgroup))
    }
}

/// A path as the kernel half puts it together.
fn leaf_first(path: &str) -> Vec<u8> {
    let mut text = vec![0];
    for component in path.split('/').rev().filter(|component| !matches!(*component, "" | ".")) {
        text.extend(component.bytes().chain([0]));
    }
    text
}

fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    let mut glob = Glob::new((0, pattern.len() as u32), (0, text.len() as u32));
    let at = |bytes: &[u8], place: u32| bytes.get(place as usize).copied().unwrap_or_default();
    while glob.answer == answer::OPEN {
        glob.step(|place| at(pattern, place), |place| at(text, place));
    }
    glob.answer == answer::YES
}

/// What the kernel half takes. `cgroups`: whether it knows of any.
pub(super) fn compile(rules: &[ExecRule], cgroups: bool) -> Result<Box<Rules>, SourceError> {
    let mut all = Box::new(Rules::new_zeroed());
    if rules.len() > RULES_MAX {
        return Err(SourceError {
            attempted: format!("cannot use {} rules", rules.len()),
            answer: format!("{RULES_MAX} can hold at one time"),
            next: "let one rule fit more programs".to_owned(),
        });
    }
    for (place, rule) in all.rules.iter_mut().zip(rules) {
        let asked = [("unit", &rule.unit), ("cgroup", &rule.cgroup)];
        if let Some((what, glob)) = asked.iter().find_map(|(what, glob)| Some((what, glob.as_ref()?)))
            && !cgroups
        {
            return Err(refused(rule, what, glob, "this kernel's cgroups are unknown to this version"));
        }
        *place = rule.compile()?;
        all.paths |= u32::from(rule.asks_for_path());
    }
    all.len = rules.len() as u32;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Body, Known};
    use crate::model::fixture;

    /// The plain way: every choice is tried.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([ANY, rest @ ..], _) => (0..=text.len()).any(|at| plainly(rest, &text[at..])),
            ([RUN, rest @ ..], _) => {
                let most = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
                (0..=most).any(|at| plainly(rest, &text[at..]))
            }
            ([ONE, rest @ ..], [byte, left @ ..]) => *byte != 0 && plainly(rest, left),
            ([wanted, rest @ ..], [byte, left @ ..]) => wanted == byte && plainly(rest, left),
            (_, []) => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn the_steps_come_to_what_trying_everything_comes_to(
            pattern in proptest::collection::vec(prop_oneof![
                Just(ANY), Just(RUN), Just(RUN), Just(ONE), Just(0), Just(b'a'), Just(b'a'), Just(b'b'),
            ], 0..10),
            text in proptest::collection::vec(prop_oneof![
                Just(0_u8), Just(b'a'), Just(b'a'), Just(b'b'), Just(ANY), Just(RUN), Just(ONE),
            ], 0..14),
        ) {
            prop_assert_eq!(is_like(&pattern, &text), plainly(&pattern, &text));
        }

        #[test]
        fn whatever_is_written_is_a_rule_or_refused(exe in "\\PC{0,20}", word in "\\PC{0,20}", cgroup in "/?\\PC{0,20}") {
            let rule = ExecRule {
                id: 1, exe: Some(exe), args: vec![word], cgroup: Some(cgroup), ..ExecRule::default()
            };
            let _ = rule.fits(&program("/usr/bin/python3", &["python3"], "/"));
        }

        #[test]
        fn a_text_without_special_characters_fits_itself_only(one in "[a-zé.-]{1,6}", other in "[a-zé.-]{1,6}") {
            let rule = ExecRule { id: 1, args: vec![one.clone()], ..ExecRule::default() };
            let exec = program("/usr/bin/python3", &["x", &other, "y"], "/");
            prop_assert_eq!(rule.fits(&exec).unwrap(), one == other || one == "x" || one == "y");
        }
    }

    fn program(path: &str, argv: &[&str], cgroup: &str) -> Exec {
        let Body::Exec(exec) = fixture::exec(argv) else { unreachable!("it makes one") };
        Exec { path: Known::Is(path.to_owned()), cgroup: Known::Is(cgroup.to_owned()), ..*exec }
    }

    fn fits(rule: &ExecRule, path: &str, argv: &[&str], cgroup: &str) -> bool {
        rule.fits(&program(path, argv, cgroup)).unwrap()
    }

    fn on_exe(exe: &str) -> ExecRule {
        ExecRule { id: 1, exe: Some(exe.to_owned()), ..ExecRule::default() }
    }

    #[test]
    fn a_name_is_the_last_component_and_a_path_is_all_of_them() {
        let fits_path = |exe: &str, path: &str| fits(&on_exe(exe), path, &["x"], "/");
        assert!(fits_path("dramatiq", "/srv/venv/bin/dramatiq"));
        assert!(!fits_path("dramatiq", "/srv/dramatiq/bin/celery"));
        assert!(!fits_path("ramatiq", "/srv/venv/bin/dramatiq"));
        // The fixture's executable is /usr/bin/python3.12, its directory /app.
        assert!(fits_path("python3*", "/srv/venv/bin/dramatiq"));
        assert!(fits_path("/srv/*/bin/dramatiq", "/srv/venv/bin/dramatiq"));
        assert!(!fits_path("/srv/*/dramatiq", "/srv/venv/bin/dramatiq"));
        assert!(!fits_path("/*/dramatiq", "/srv/venv/bin/dramatiq"));
        assert!(fits_path("/app/bin/dramatiq", "./bin//dramatiq"));
        assert!(fits_path("dram?tiq", "dramatiq"));
        assert!(fits_path("\\*", "/x/*"));
        assert!(!fits_path("\\*", "/x/y"));
    }

    #[test]
    fn words_stand_one_after_another() {
        let rule = |args: &[&str]| ExecRule {
            id: 1,
            args: args.iter().map(|&word| word.to_owned()).collect(),
            ..ExecRule::default()
        };
        let fits_words = |args: &[&str], argv: &[&str]| fits(&rule(args), "/bin/x", argv, "/");
        let worker = ["python3", "-X", "dev", "-m", "dramatiq", "shop.tasks", ""];
        assert!(fits_words(&["-m", "dramatiq"], &worker));
        assert!(fits_words(&["dramatiq", "shop.*", ""], &worker));
        assert!(!fits_words(&["-m", "shop.tasks"], &worker));
        assert!(!fits_words(&["*", "dramatiq", "dramatiq"], &worker));
        assert!(!fits_words(&["-m dramatiq"], &worker));
        assert!(!fits_words(&["-m", "drama"], &worker));
    }

    #[test]
    fn a_cgroup_is_a_path_and_a_unit_one_of_its_components() {
        let on_cgroup = |cgroup: &str, is: &str| {
            fits(&ExecRule { cgroup: Some(cgroup.to_owned()), ..on_exe("*") }, "/bin/x", &["x"], is)
        };
        assert!(on_cgroup("/system.slice/worker.service", "/system.slice/worker.service"));
        assert!(!on_cgroup("/system.slice/worker.service", "/system.slice/worker.service/sub"));
        assert!(on_cgroup("/system.slice/*", "/system.slice/worker.service"));
        assert!(on_cgroup("/system.slice/*", "/system.slice/worker.service/sub"));
        assert!(!on_cgroup("/system.slice/*", "/system.slice"));
        assert!(on_cgroup("/system.slice/work*", "/system.slice/worker.service/sub"));
        assert!(!on_cgroup("/system.slice/*", "/user.slice/system.slice/x"));
        assert!(on_cgroup("/*/x", "/user.slice/x"));
        assert!(!on_cgroup("/*/x", "/user.slice/y/x"));
        assert!(on_cgroup("/", "/"));
        assert!(!on_cgroup("/", "/x"));
        let on_unit = |unit: &str, is: &str| {
            fits(&ExecRule { unit: Some(unit.to_owned()), ..on_exe("*") }, "/bin/x", &["x"], is)
        };
        assert!(on_unit("worker*.service", "/system.slice/worker@1.service"));
        assert!(on_unit("worker*.service", "/system.slice/worker@1.service/sub"));
        assert!(on_unit("system.slice", "/system.slice/worker@1.service/sub"));
        assert!(!on_unit("worker", "/system.slice/worker@1.service"));
    }

    #[test]
    fn what_is_no_rule_is_refused_by_name() {
        let said = |rule: ExecRule| rule.compile().unwrap_err().to_string();
        let long = "x".repeat(RULE_BYTES);
        assert!(said(ExecRule { id: 3, ..ExecRule::default() }).contains("rule 3, exe and args"));
        assert!(said(ExecRule { id: 0, ..on_exe("x") }).contains("rule 0"));
        assert!(said(on_exe(&long)).contains(&long));
        assert!(said(on_exe("bin/x")).contains("exe \"bin/x\": a path begins with /"));
        assert!(said(on_exe("/bin//x")).contains("empty"));
        assert!(said(on_exe("x\\")).contains("nothing follows"));
        assert!(said(ExecRule { unit: Some("a/b".into()), ..on_exe("x") }).contains("unit \"a/b\""));
        assert!(said(ExecRule { cgroup: Some("a*".into()), ..on_exe("x") }).contains("cgroup \"a*\""));
        assert!(said(ExecRule { args: vec!["-m\0".into()], ..on_exe("x") }).contains("NUL"));
        let many = vec![on_exe("x"); RULES_MAX + 1];
        assert!(compile(&many, true).unwrap_err().to_string().contains("33 rules"));
        let grouped = ExecRule { unit: Some("x.service".into()), ..on_exe("x") };
        assert!(compile(&[grouped], false).unwrap_err().to_string().contains("cgroups are unknown"));
    }
}
