//! The beginning and the end of something that may be long. Knows nothing of what it is.

use std::collections::VecDeque;

/// The first and the last of what was put in, in order; what is between is only counted.
#[derive(Debug)]
pub(super) struct Ends<T> {
    first: Vec<T>,
    last: VecDeque<T>,
    most: usize,
    /// How many were dropped from the middle.
    pub(super) left_out: u64,
}

impl<T> Ends<T> {
    /// Keeps at most so many: half of them from each end.
    pub(super) const fn new(most: usize) -> Self {
        Self { first: Vec::new(), last: VecDeque::new(), most, left_out: 0 }
    }

    /// Puts one in.
    pub(super) fn push(&mut self, one: T) {
        if self.first.len() < self.most / 2 {
            self.first.push(one);
            return;
        }
        if self.last.len() >= self.most - self.most / 2 {
            self.last.pop_front();
            self.left_out += 1;
        }
        self.last.push_back(one);
    }

    /// What is kept.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.last)
    }

    /// What is kept, itself.
    pub(super) fn into_vec(self) -> Vec<T> {
        let mut all = self.first;
        all.extend(self.last);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_left_out_and_counted() {
        let mut ends = Ends::new(5);
        (0..5).for_each(|number| ends.push(number));
        assert_eq!((ends.iter().copied().collect::<Vec<_>>(), ends.left_out), (vec![0, 1, 2, 3, 4], 0));
        (5..9).for_each(|number| ends.push(number));
        assert_eq!(ends.left_out, 4);
        assert_eq!(ends.into_vec(), [0, 1, 6, 7, 8]);
    }
}
