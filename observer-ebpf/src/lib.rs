//! The records the kernel half sends.
#![no_std]
