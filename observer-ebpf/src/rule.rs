//! Rules as the kernel half takes them, and the switches that go with them. What a rule means is said where it is written and where it
//! is compared.

/// Rules that can hold at one time. A power of two: a masked number is an index the verifier believes.
pub const RULES_MAX: usize = 32;
/// Bytes of all patterns of one rule, compiled. A power of two likewise.
pub const RULE_BYTES: usize = 1024;
/// Bytes of a command line that rules are compared with; what comes after is not looked at.
pub const RULE_ARGS_MAX: usize = 8 * 1024;
/// Steps of [`crate::glob::Glob`] that all rules together get for one program that is started: about a millisecond.
pub const RULE_STEPS: u32 = 128 * 1024;

wire! {
    /// Which programs are tracked from their start.
    pub struct Rule = 1056 {
        /// What user space calls it; never 0.
        pub id: u32,
        /// Bits of [`flag`].
        pub flags: u32,
        /// The real user it asks for.
        pub uid: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
        /// Where its patterns end in `bytes`: they stand one after another in the order of [`pattern`]. An empty one asks for nothing.
        pub ends: [u32; pattern::COUNT],
        /// The patterns, as [`crate::glob`] has them.
        pub bytes: [u8; RULE_BYTES],
    }
}

/// Bits of [`Rule::flags`].
pub mod flag {
    /// It asks for a user.
    pub const UID: u32 = 1;
}

/// What the patterns of a [`Rule`] are compared with.
pub mod pattern {
    /// The file that was given to `execve`, and the executable.
    pub const EXE: usize = 0;
    /// The command line.
    pub const ARGS: usize = 1;
    /// The cgroup.
    pub const UNIT: usize = 2;
    /// The cgroup again.
    pub const CGROUP: usize = 3;
    /// How many.
    pub const COUNT: usize = 4;
}

wire! {
    /// All rules: value of the `RULES` table, of which one holds.
    pub struct Rules = 33_800 {
        /// How many.
        pub len: u32,
        /// 1 when one of them asks for more of a file than its name.
        pub paths: u32,
        /// They; the first that fits counts.
        pub rules: [Rule; RULES_MAX],
    }
}

/// Places of the table `STATE`.
pub mod state {
    /// When a program was last tracked by a rule, in nanoseconds; written by the kernel half only.
    pub const ENTERED: u32 = 0;
    /// What [`ENTERED`] was when user space saw that nothing was tracked; another number: something may be.
    pub const IDLE_AT: u32 = 1;
    /// Which entry of `RULES` holds.
    pub const HOLDS: u32 = 2;
    /// How many.
    pub const COUNT: u32 = 3;
    /// In [`HOLDS`]: none.
    pub const NONE: u64 = 2;
}
