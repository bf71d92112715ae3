//! x
fn main() { match observer::source::ebpf::check() { Ok(f) => for p in f { println!("{:24} {}", p.name, p.verified_instructions) }, Err(e) => println!("{e}") } }
