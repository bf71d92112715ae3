//! The smallest set of differences that decides whether a run works: delta debugging (Zeller and Hildebrandt, "Simplifying and isolating
//! failure-inducing input", 2002, `ddmin`). Knows numbers of differences and a test; nothing of how a run is made.

use std::collections::{BTreeMap, BTreeSet};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// A run to be made.
#[derive(Clone, Copy, Debug)]
pub struct Next<'a> {
    /// What it starts from.
    pub base: Base,
    /// The differences that are toggled.
    pub toggled: &'a BTreeSet<usize>,
    /// How many runs are left, this one included: a guess until the set is found, and right from then on unless a run comes out otherwise.
    pub left: usize,
}

/// Makes a run. An error ends the search.
pub type Test<'a, E> = dyn FnMut(Next<'_>) -> Result<Outcome, E> + 'a;

/// Finds the set. `count` differences are numbered from 0, the likeliest first; what a proof rests on is tried `repeat` times (at least
/// once). `known` is kept up to date: the smallest set that turned one run into the other so far, for when the search is broken off.
///
/// # Errors
/// The test's own.
pub fn search<E>(
    count: usize,
    repeat: usize,
    known: &mut Vec<usize>,
    test: &mut Test<'_, E>,
) -> Result<Answer, E> {
    let (all, repeat) = ((0..count).collect(), repeat.max(1));
    let mut search = Search { all, repeat, minimal: None, among: count, seen: BTreeMap::new(), known, test };
    let none = BTreeSet::new();
    // What was recorded must happen again, or nothing can be learnt from changing it.
    for base in [Base::Failing, Base::Working] {
        if search.ask(base, &none)? != base.outcome() {
            return Ok(Answer::Unproved(Vec::new(), base.not_again()));
        }
    }
    let mut best = None;
    for base in [Base::Failing, Base::Working] {
        let Some(minimal) = search.minimise(base)? else {
            if base == Base::Failing {
                let why = "with all differences toggled the failing run does not work: what decides is not among them";
                return Ok(Answer::Unproved(Vec::new(), why.to_owned()));
            }
            continue;
        };
        search.minimal = Some(minimal.clone());
        // Both runs again too: the set decides only where nothing else does.
        for base in [Base::Failing, Base::Working] {
            if !search.always(base, &none, base.outcome())? {
                return Ok(Answer::Unproved(Vec::new(), base.not_again()));
            }
        }
        if search.always(Base::Working, &minimal, Outcome::Fails)?
            && search.always(Base::Failing, &minimal, Outcome::Works)?
        {
            return Ok(Answer::Proved(minimal.into_iter().collect()));
        }
        best.get_or_insert(minimal);
    }
    let minimal: Vec<usize> = best.unwrap_or_default().into_iter().collect();
    let why = "toggling it did not turn working into failing and back every time: the outcome depends on something else too";
    Ok(Answer::Unproved(minimal, why.to_owned()))
}

impl Base {
    /// How the run came out when it was recorded.
    const fn outcome(self) -> Outcome {
        match self {
            Self::Failing => Outcome::Fails,
            Self::Working => Outcome::Works,
        }
    }

    /// How it comes out when what decides is toggled.
    const fn flipped(self) -> Outcome {
        match self {
            Self::Failing => Outcome::Works,
            Self::Working => Outcome::Fails,
        }
    }

    fn not_again(self) -> String {
        let what = match self {
            Self::Failing => "the failing run did not fail again",
            Self::Working => "the working run did not work again",
        };
        format!(
            "{what}: it does not always come out the same, or something that cannot be toggled has changed"
        )
    }
}

struct Search<'s, 't, E> {
    all: BTreeSet<usize>,
    repeat: usize,
    /// The set, once it is only to be proved.
    minimal: Option<BTreeSet<usize>>,
    /// How many differences it is looked for among, until then.
    among: usize,
    /// What was tried: the last outcome, and how often.
    seen: BTreeMap<(Base, BTreeSet<usize>), (Outcome, usize)>,
    known: &'s mut Vec<usize>,
    test: &'s mut Test<'t, E>,
}

impl<E> Search<'_, '_, E> {
    /// Tries it, unless it was tried already.
    fn ask(&mut self, base: Base, set: &BTreeSet<usize>) -> Result<Outcome, E> {
        match self.seen.get(&(base, set.clone())) {
            Some((outcome, _)) => Ok(*outcome),
            None => self.run(base, set),
        }
    }

    fn left(&self) -> usize {
        let again = |set: &BTreeSet<usize>| {
            let times = |base| self.seen.get(&(base, set.clone())).map_or(0, |(_, times)| *times);
            [Base::Failing, Base::Working].map(|base| self.repeat.saturating_sub(times(base))).iter().sum()
        };
        let neither: usize = again(&BTreeSet::new());
        match &self.minimal {
            Some(minimal) => neither + again(minimal),
            // Each halving asks of one half, and sometimes of the other.
            None => neither + 2 * self.repeat + 2 * (self.among.max(2) - 1).ilog2() as usize + 1,
        }
    }

    fn run(&mut self, base: Base, set: &BTreeSet<usize>) -> Result<Outcome, E> {
        let left = self.left();
        let outcome = (self.test)(Next { base, toggled: set, left })?;
        let seen = self.seen.entry((base, set.clone())).or_insert((outcome, 0));
        *seen = (outcome, seen.1 + 1);
        if outcome == base.flipped() && (self.known.is_empty() || set.len() < self.known.len()) {
            *self.known = set.iter().copied().collect();
        }
        Ok(outcome)
    }

    /// Whether it comes out so, as often as it is to be tried.
    fn always(&mut self, base: Base, set: &BTreeSet<usize>, expected: Outcome) -> Result<bool, E> {
        loop {
            match self.seen.get(&(base, set.clone())) {
                Some((outcome, _)) if *outcome != expected => return Ok(false),
                Some((_, times)) if *times >= self.repeat => return Ok(true),
                _ => drop(self.run(base, set)?),
            }
        }
    }

    /// A small subset that flips the base; `None` when all together do not.
    fn minimise(&mut self, base: Base) -> Result<Option<BTreeSet<usize>>, E> {
        self.minimal = None;
        self.among = self.all.len();
        const LIKELY: usize = 3;
        let alone = |one: usize| BTreeSet::from([one]);
        let flipped = base.flipped();
        let all = self.all.clone();
        // The likeliest; then whether it is among them at all; then a few more alone, and more and more together.
        if !all.is_empty() && self.ask(base, &alone(0))? == flipped {
            return Ok(Some(alone(0)));
        }
        if all.is_empty() || self.ask(base, &all)? != flipped {
            return Ok(None);
        }
        for one in 1..LIKELY.min(all.len()) {
            if self.ask(base, &alone(one))? == flipped {
                return Ok(Some(alone(one)));
            }
        }
        let mut size = 2;
        while size < all.len() {
            let likeliest: BTreeSet<usize> = (0..size).collect();
            if self.ask(base, &likeliest)? == flipped {
                return self.ddmin(base, likeliest.into_iter().collect()).map(Some);
            }
            size *= 2;
        }
        self.ddmin(base, all.into_iter().collect()).map(Some)
    }

    /// `ddmin`: a subset that flips the base, and of which no part that was tried does.
    fn ddmin(&mut self, base: Base, mut current: Vec<usize>) -> Result<BTreeSet<usize>, E> {
        let flipped = base.flipped();
        let mut parts = 2;
        while current.len() > 1 {
            self.among = current.len();
            let size = current.len().div_ceil(parts);
            let chunks: Vec<BTreeSet<usize>> =
                current.chunks(size).map(|chunk| chunk.iter().copied().collect()).collect();
            let mut smaller = None;
            for chunk in &chunks {
                if self.ask(base, chunk)? == flipped {
                    smaller = Some((chunk.clone(), 2));
                    break;
                }
            }
            if smaller.is_none() && chunks.len() > 2 {
                for chunk in &chunks {
                    let rest: BTreeSet<usize> =
                        current.iter().copied().filter(|one| !chunk.contains(one)).collect();
                    if self.ask(base, &rest)? == flipped {
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
        let mut last = 0;
        let answer = search::<Infallible>(count, 2, &mut Vec::new(), &mut |Next { base, toggled, left }| {
            runs += 1;
            assert!(left > 0);
            last = left;
            let as_failing = match base {
                Base::Failing => all.difference(toggled).copied().collect(),
                Base::Working => toggled.clone(),
            };
            Ok(if fails(&as_failing) { Outcome::Fails } else { Outcome::Works })
        });
        let answer = answer.unwrap();
        assert!(
            last == 1 || !matches!(answer, Answer::Proved(_)),
            "{last} runs were said to be left at the end"
        );
        (answer, runs)
    }

    #[test]
    fn the_likeliest_alone_takes_few_runs() {
        let (answer, runs) = found(40, |set| set.contains(&0));
        assert_eq!(answer, Answer::Proved(vec![0]));
        assert!(runs <= 8, "{runs}");
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
            let answer = search::<Infallible>(12, 3, &mut Vec::new(), &mut |_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                Ok(if state.is_multiple_of(3) { Outcome::Fails } else { Outcome::Works })
            });
            assert!(matches!(answer.unwrap(), Answer::Unproved(..)), "seed {seed}");
        }
    }

    #[test]
    fn what_was_known_is_kept_when_it_is_broken_off() {
        let mut known = Vec::new();
        let mut runs = 0;
        let broken = search::<()>(20, 2, &mut known, &mut |Next { base, toggled, .. }| {
            runs += 1;
            let flips = toggled.contains(&1);
            match (runs, base, flips) {
                (7.., ..) => Err(()),
                (_, Base::Failing, true) | (_, Base::Working, false) => Ok(Outcome::Works),
                _ => Ok(Outcome::Fails),
            }
        });
        assert_eq!((broken, known), (Err(()), vec![1]));
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
