//! Matching a compiled glob against a text, one small step at a time: the kernel runs the steps as rounds of a loop, user space in a
//! `while`. It knows bytes only; what the text is made of, and how a glob is written, is not its business.
//!
//! A text consists of words or of a path's components, leaf first, each ended by NUL, and one NUL before the first.

/// In a pattern: any run of bytes, NUL included. No byte of UTF-8 text looks like this or the next two.
pub const ANY: u8 = 0xff;
/// In a pattern: any run of bytes without NUL, so within one word.
pub const RUN: u8 = 0xfe;
/// In a pattern: one byte that is not NUL.
pub const ONE: u8 = 0xfd;

/// Not at such a place.
const NOWHERE: u32 = u32::MAX;

/// What is known after a step.
pub mod answer {
    /// Another step is needed.
    pub const OPEN: u32 = 0;
    /// The text is not like the pattern.
    pub const NO: u32 = 1;
    /// The whole text is like the whole pattern.
    pub const YES: u32 = 2;
}

/// Where a comparison stands. Places are whatever the two functions given to [`Glob::step`] take.
///
/// Two places to come back to are enough, the last [`ANY`] and the last [`RUN`] after it. What stands between two [`ANY`]s is best found
/// as far to the front as possible; within it a [`RUN`] is best short, because what follows it up to the next NUL can begin later too.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub struct Glob {
    pattern: u32,
    pattern_end: u32,
    text: u32,
    text_end: u32,
    /// Behind the last `RUN` in the pattern, and where in the text it ends for now.
    run: u32,
    run_text: u32,
    /// The same of the last `ANY`.
    any: u32,
    any_text: u32,
    /// One of [`answer`].
    pub answer: u32,
}

impl Glob {
    /// Before the first step: a pattern and a text, each from its first place to behind its last.
    #[inline(always)]
    pub const fn new(pattern: (u32, u32), text: (u32, u32)) -> Self {
        Self {
            pattern: pattern.0,
            pattern_end: pattern.1,
            text: text.0,
            text_end: text.1,
            run: NOWHERE,
            run_text: 0,
            any: NOWHERE,
            any_text: 0,
            answer: answer::OPEN,
        }
    }

    /// One step; the bytes at a place of the pattern and of the text are asked for.
    #[inline(always)]
    pub fn step(&mut self, pattern: impl Fn(u32) -> u8, text: impl Fn(u32) -> u8) {
        if self.pattern == self.pattern_end {
            if self.text == self.text_end {
                self.answer = answer::YES;
                return;
            }
        } else {
            let wanted = pattern(self.pattern);
            if wanted == ANY {
                self.pattern += 1;
                (self.any, self.any_text, self.run) = (self.pattern, self.text, NOWHERE);
                if self.pattern == self.pattern_end {
                    self.answer = answer::YES;
                }
                return;
            }
            if wanted == RUN {
                self.pattern += 1;
                (self.run, self.run_text) = (self.pattern, self.text);
                return;
            }
            if self.text < self.text_end {
                let byte = text(self.text);
                if byte == wanted || (wanted == ONE && byte != 0) {
                    self.pattern += 1;
                    self.text += 1;
                    return;
                }
            }
        }
        if self.run != NOWHERE && self.run_text < self.text_end && text(self.run_text) != 0 {
            self.run_text += 1;
            (self.pattern, self.text) = (self.run, self.run_text);
        } else if self.any != NOWHERE && self.any_text < self.text_end {
            self.any_text += 1;
            (self.pattern, self.text, self.run) = (self.any, self.any_text, NOWHERE);
        } else {
            self.answer = answer::NO;
        }
    }
}
