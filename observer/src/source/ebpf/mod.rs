//! The eBPF source.
#![expect(unsafe_code, reason = "aya asks for a promise about the types that cross into the kernel")]

mod btf;
mod programs;

const VITAL_SIZE: u32 = 2 * 1024 * 1024;
const BULK_SIZE: u32 = 8 * 1024 * 1024;

/// x
pub fn check() -> Result<Vec<programs::ProgramFacts>, crate::source::SourceError> {
    let t = std::time::Instant::now();
    let p = programs::Programs::load(65536)?;
    eprintln!("{:?}", t.elapsed());
    Ok(p.facts())
}
pub use programs::ProgramFacts;
