//! The smallest set of differences that decides whether a run works: delta debugging (Zeller and Hildebrandt, "Simplifying and isolating
//! failure-inducing input", 2002, `ddmin`). Knows numbers of differences and a test; nothing of how a run is made.

use std::collections::BTreeSet;

/// How a run came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As the run that works.
    Works,
    /// As the run that fails.
    Fails,
    /// Neither can be told.
    Unclear,
}

/// From which of the two runs one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The failing one; what is toggled is as in the working one.
    Failing,
    /// The working one; what is toggled is as in the failing one.
    Working,
}

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This set, and no smaller one, turns failing into working, and working into failing, each time it was tried.
    Proved(Vec<usize>),
    /// This set was found, and could not be proved: why.
    Unproved(Vec<usize>, String),
}

/// Runs with these differences toggled, starting from that run. An error ends the search.
pub type Test<'a, E> = dyn FnMut(Base, &BTreeSet<usize>) -> Result<Outcome, E> + 'a;

/// Finds the set. `count` differences are numbered from 0, the likeliest first; each direction is tried `repeat` times (at least once).
///
/// # Errors
/// The test's own.
pub fn search<E>(count: usize, repeat: usize, test: &mut Test<'_, E>) -> Result<Answer, E> {
    let all: BTreeSet<usize> = (0..count).collect();
    let none = BTreeSet::new();
    // What was recorded must happen again, or nothing can be learnt from changing it.
    for (base, expected, what) in [
        (Base::Failing, Outcome::Fails, "the failing run did not fail again"),
        (Base::Working, Outcome::Works, "the working run did not work again"),
    ] {
        for _ in 0..repeat.max(1) {
            if test(base, &none)? != expected {
                let why = format!(
                    "{what}: it does not always come out the same, or something that cannot be toggled has changed"
                );
                return Ok(Answer::Unproved(Vec::new(), why));
            }
        }
    }
    if count == 0 || test(Base::Failing, &all)? != Outcome::Works {
        let why =
            "with all differences toggled the failing run does not work: what decides is not among them";
        return Ok(Answer::Unproved(Vec::new(), why.to_owned()));
    }
    let mut best = None;
    for base in [Base::Failing, Base::Working] {
        let flipped = if base == Base::Failing { Outcome::Works } else { Outcome::Fails };
        if base == Base::Working && test(base, &all)? != flipped {
            continue;
        }
        let minimal = minimise(base, flipped, &all, test)?;
        if flips(&minimal, repeat, test)? {
            return Ok(Answer::Proved(minimal.into_iter().collect()));
        }
        best.get_or_insert(minimal);
    }
    let minimal: Vec<usize> = best.unwrap_or_default().into_iter().collect();
    let why = "toggling it did not turn working into failing and back every time: the outcome depends on something else too";
    Ok(Answer::Unproved(minimal, why.to_owned()))
}

/// Whether a set turns failing into working, and working into failing, every time.
fn flips<E>(set: &BTreeSet<usize>, repeat: usize, test: &mut Test<'_, E>) -> Result<bool, E> {
    for _ in 0..repeat.max(1) {
        if test(Base::Failing, set)? != Outcome::Works || test(Base::Working, set)? != Outcome::Fails {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The smallest subset that still flips the base: `ddmin`, after the likeliest have been tried alone.
fn minimise<E>(
    base: Base,
    flipped: Outcome,
    all: &BTreeSet<usize>,
    test: &mut Test<'_, E>,
) -> Result<BTreeSet<usize>, E> {
    const LIKELY: usize = 3;
    for one in all.iter().take(LIKELY) {
        let set = BTreeSet::from([*one]);
        if test(base, &set)? == flipped {
            return Ok(set);
        }
    }
    let mut current: Vec<usize> = all.iter().copied().collect();
    let mut parts = 2;
    while current.len() > 1 {
        let size = current.len().div_ceil(parts);
        let chunks: Vec<BTreeSet<usize>> =
            current.chunks(size).map(|chunk| chunk.iter().copied().collect()).collect();
        let mut smaller = None;
        for chunk in &chunks {
            if test(base, chunk)? == flipped {
                smaller = Some((chunk.clone(), 2));
                break;
            }
        }
        if smaller.is_none() && chunks.len() > 2 {
            for chunk in &chunks {
                let rest: BTreeSet<usize> =
                    current.iter().copied().filter(|one| !chunk.contains(one)).collect();
                if test(base, &rest)? == flipped {
                    smaller = Some((rest, parts.saturating_sub(1).max(2)));
                    break;
                }
            }
        }
        match smaller {
            Some((set, next)) => {
                current = set.into_iter().collect();
                parts = next;
            }
            None if parts >= current.len() => break,
            None => parts = (parts * 2).min(current.len()),
        }
    }
    Ok(current.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// A command that fails exactly when `fails` says so of the set of differences that are as in the failing run.
    fn found(count: usize, fails: impl Fn(&BTreeSet<usize>) -> bool) -> (Answer, usize) {
        let mut runs = 0;
        let all: BTreeSet<usize> = (0..count).collect();
        let answer = search::<Infallible>(count, 2, &mut |base, toggled| {
            runs += 1;
            let as_failing = match base {
                Base::Failing => all.difference(toggled).copied().collect(),
                Base::Working => toggled.clone(),
            };
            Ok(if fails(&as_failing) { Outcome::Fails } else { Outcome::Works })
        });
        (answer.unwrap(), runs)
    }

    #[test]
    fn the_likeliest_alone_takes_few_runs() {
        let (answer, runs) = found(40, |set| set.contains(&0));
        assert_eq!(answer, Answer::Proved(vec![0]));
        assert!(runs <= 12, "{runs}");
    }

    #[test]
    fn two_that_are_needed_together_are_found_together() {
        let (answer, runs) = found(30, |set| set.contains(&7) && set.contains(&21));
        assert_eq!(answer, Answer::Proved(vec![7, 21]));
        assert!(runs < 80, "{runs}");
    }

    #[test]
    fn what_cannot_be_toggled_is_not_blamed_on_what_can() {
        let (answer, _) = found(10, |_| true);
        assert!(matches!(answer, Answer::Unproved(set, _) if set.is_empty()));
    }

    #[test]
    fn a_command_that_fails_now_and_then_proves_nothing() {
        for seed in 0..50_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let answer = search::<Infallible>(12, 3, &mut |_, _| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                Ok(if state.is_multiple_of(3) { Outcome::Fails } else { Outcome::Works })
            });
            assert!(matches!(answer.unwrap(), Answer::Unproved(..)), "seed {seed}");
        }
    }

    proptest! {
        #[test]
        fn any_pair_or_single_is_found(count in 2_usize..25, a in 0_usize..25, b in 0_usize..25) {
            let (a, b) = (a % count, b % count);
            let (answer, _) = found(count, |set| set.contains(&a) && set.contains(&b));
            let expected: BTreeSet<usize> = [a, b].into();
            prop_assert_eq!(answer, Answer::Proved(expected.into_iter().collect()));
        }
    }
}
