//! Where CPython's machine code begins and ends the import of a module that is not loaded yet. Reads an ELF file and decodes x86-64;
//! runs nothing, knows nothing of probes.
//!
//! `import_find_and_load` (Python/import.c, 3.8 to 3.14) is what `-X importtime` measures. It is static and always inlined, so it has no
//! symbol. The exported `PyImport_ImportModuleLevelObject` around it runs for every import statement, those of loaded modules too; inside
//! stand two calls that can be recognised in any build, stripped ones too:
//!
//! - `_PySys_Audit(tstate, "import", "OOOOO", abs_name, …)`, the only place that hands these two strings over as second and third
//!   argument;
//! - `PyObject_CallMethodObjArgs(importlib, "_find_and_load", abs_name, …)`, the next call of that exported function on every way on.
//!   Up to 3.10 it is `_PyObject_CallMethodIdObjArgs`.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::Path,
};

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, OpKind,
    Register, UsedRegister,
};
use memchr::memmem;
use object::{
    Architecture, Endianness, Object, ObjectSection, ObjectSegment, ObjectSymbol, ObjectSymbolTable,
    ReadCache, RelocationTarget, SectionKind, read::elf::ElfFile64,
};

use super::{
    installed::MOST_BYTES,
    layout::{COOKIE, DEBUG_OFFSETS_LEN, Layout},
    plain,
};

/// What every import statement passes through, in every CPython since 3.3: exported, so it tells CPython from the rest.
pub const IMPORT: &str = "PyImport_ImportModuleLevelObject";
const CALL_METHOD: [&str; 2] = ["PyObject_CallMethodObjArgs", "_PyObject_CallMethodIdObjArgs"];

/// How many instructions are looked at between the arguments and their call, and from there to the next one.
const TO_CALL: usize = 48;
const TO_END: usize = 2_000;
const TO_BRANCH: usize = 12;
/// Bytes around the third argument within which the second is.
const NEAR: u64 = 96;
/// What is read at the entrance (the name and the level of `(name, globals, locals, fromlist, level)`), and at the end.
const ARGUMENTS: [Register; 3] = [Register::RDI, Register::R8, Register::RSP];
const RESULT: [Register; 2] = [Register::RAX, Register::RSP];
/// More ends than this are not to be believed.
const MOST_ENDS: usize = 4;

/// Places in a file, as offsets in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// Of the function that every import statement calls, its arguments in their registers.
    pub call: u64,
    /// Of the call that begins an import.
    pub start: u64,
    /// Behind the calls that do it.
    pub ends: Vec<u64>,
    /// `3.12.1`, where the file says it (from 3.11 on).
    pub version: Option<String>,
    /// Where things stand.
    pub layout: Layout,
    /// Of `_PyRuntime` in memory, behind the beginning of the file's image; `None`: it is not exported.
    pub runtime: Option<u64>,
}

/// Why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEntrance {
    /// The file cannot be read, or is no ELF file for x86-64.
    #[error("it cannot be read as an x86-64 ELF file")]
    NotElf,
    /// It does not export the import function.
    #[error("it does not export {IMPORT}")]
    NotPython,
    /// No offsets are known for it.
    #[error("this version of CPython is not known")]
    Version,
    /// Built without the GIL: other offsets.
    #[error("it is a free-threaded build")]
    FreeThreaded,
    /// The code does not look as expected.
    #[error("import_find_and_load cannot be recognised in its code")]
    NotRecognised,
}

struct Section {
    address: u64,
    offset: u64,
    bytes: Vec<u8>,
}

struct Image {
    code: Vec<Section>,
    /// Addresses of the functions that call a method, of their stubs' slots.
    functions: HashSet<u64>,
    slots: HashSet<u64>,
}

/// Looks for the places in an executable or library. `minor` is the version where the file cannot tell it.
///
/// # Errors
/// When there are none, and why.
pub fn find(path: &Path, minor: Option<u32>) -> Result<Entrance, NoEntrance> {
    let file = plain::open(path, MOST_BYTES).map_err(|_| NoEntrance::NotElf)?;
    let data = ReadCache::new(file);
    let elf = ElfFile64::<Endianness, _>::parse(&data).map_err(|_| NoEntrance::NotElf)?;
    if elf.architecture() != Architecture::X86_64 {
        return Err(NoEntrance::NotElf);
    }
    let mut symbols = HashMap::new();
    let wanted = [IMPORT, CALL_METHOD[0], CALL_METHOD[1], "Py_Version", "_PyRuntime"];
    for symbol in elf.dynamic_symbols().filter(ObjectSymbol::is_definition) {
        if let Some(name) = symbol.name().ok().and_then(|name| wanted.iter().find(|one| **one == name)) {
            symbols.insert(*name, symbol.address());
        }
    }
    if !symbols.contains_key(IMPORT) {
        return Err(NoEntrance::NotPython);
    }
    let at = |address: u64, len: u64| {
        let section = elf
            .sections()
            .find(|section| section.address() <= address && address < section.address() + section.size())?;
        section.data_range(address, len).ok().flatten()
    };
    let number = symbols.get("Py_Version").and_then(|address| at(*address, 4));
    let number = number.and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)));
    let version = number.map(|n| format!("{}.{}.{}", n >> 24, n >> 16 & 0xff, n >> 8 & 0xff));
    let minor = number.map(|n| n >> 16 & 0xff).or(minor).ok_or(NoEntrance::Version)?;
    let offsets = symbols.get("_PyRuntime").and_then(|address| at(*address, DEBUG_OFFSETS_LEN as u64));
    if offsets.is_some_and(|bytes| bytes.starts_with(COOKIE) && bytes.get(16) == Some(&1)) {
        return Err(NoEntrance::FreeThreaded);
    }
    let layout = Layout::of(minor, offsets).ok_or(NoEntrance::Version)?;

    let mut sections = Vec::new();
    let (mut formats, mut events) = (HashSet::new(), HashSet::new());
    for section in elf.sections() {
        let kind = section.kind();
        if !matches!(kind, SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString) {
            continue;
        }
        let (Ok(bytes), Some((offset, _))) = (section.data(), section.file_range()) else { continue };
        if kind == SectionKind::Text {
            sections.push(Section { address: section.address(), offset, bytes: bytes.to_vec() });
        } else {
            // The linker lets a string be the end of a longer one.
            let found = |text: &'static [u8]| memmem::find_iter(bytes, text);
            formats.extend(found(b"OOOOO\0").map(|at| section.address() + at as u64));
            events.extend(found(b"import\0").map(|at| section.address() + at as u64));
        }
    }
    let called = CALL_METHOD.iter().filter_map(|name| symbols.get(name).copied()).collect();
    let image = Image { code: sections, functions: called, slots: slots(&elf) };
    let (start, ends) = image.search(&formats, &events).ok_or(NoEntrance::NotRecognised)?;
    let call = symbols.get(IMPORT).map(|address| image.cheapest(*address, &ARGUMENTS));
    let call = call.and_then(|address| image.file_offset(address)).ok_or(NoEntrance::NotRecognised)?;
    let image = elf.segments().map(|segment| segment.address()).min().unwrap_or(0);
    let runtime = symbols.get("_PyRuntime").and_then(|address| address.checked_sub(image));
    Ok(Entrance { call, start, ends, version, layout, runtime })
}

/// Where the dynamic linker puts the addresses of the functions that call a method.
fn slots<'data, R: object::ReadRef<'data>>(elf: &ElfFile64<'data, Endianness, R>) -> HashSet<u64> {
    let table = elf.dynamic_symbol_table();
    let is_wanted = |target| {
        let RelocationTarget::Symbol(index) = target else { return false };
        let symbol = table.as_ref().and_then(|table| table.symbol_by_index(index).ok());
        symbol.is_some_and(|symbol| symbol.name().is_ok_and(|name| CALL_METHOD.contains(&name)))
    };
    let relocations = elf.dynamic_relocations().into_iter().flatten();
    relocations.filter(|(_, one)| is_wanted(one.target())).map(|(address, _)| address).collect()
}

impl Image {
    fn section(&self, address: u64) -> Option<&Section> {
        self.code.iter().find(|section| {
            (section.address..section.address + section.bytes.len() as u64).contains(&address)
        })
    }

    fn file_offset(&self, address: u64) -> Option<u64> {
        self.section(address).map(|section| address - section.address + section.offset)
    }

    fn decode(&self, address: u64) -> Option<Instruction> {
        let section = self.section(address)?;
        let bytes = section.bytes.get((address - section.address) as usize..)?;
        let instruction = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    fn search(&self, formats: &HashSet<u64>, events: &HashSet<u64>) -> Option<(u64, Vec<u64>)> {
        let mut found: Option<(u64, Vec<u64>)> = None;
        for section in &self.code {
            for at in loads(section, Register::RDX, formats) {
                let from = at.saturating_sub(NEAR);
                let Some(call) = self.next_call(at) else { continue };
                let second = loads(section, Register::RSI, events);
                if !second.into_iter().any(|load| (from..call.ip()).contains(&load)) {
                    continue;
                }
                let Some(ends) = self.ends(call.next_ip()) else { continue };
                let place = (self.file_offset(call.ip())?, ends);
                // Two places would mean that this is not what it is taken for.
                if found.as_ref().is_some_and(|known| *known != place) {
                    return None;
                }
                found = Some(place);
            }
        }
        found
    }

    /// The first call from here on, along jumps.
    fn next_call(&self, from: u64) -> Option<Instruction> {
        let mut next = from;
        for _ in 0..TO_CALL {
            let instruction = self.decode(next)?;
            next = match instruction.flow_control() {
                FlowControl::Call | FlowControl::IndirectCall => return Some(instruction),
                FlowControl::Next => instruction.next_ip(),
                FlowControl::UnconditionalBranch => instruction.near_branch_target(),
                _ => return None,
            };
        }
        None
    }

    /// Behind every call of a method that can be reached without passing another.
    fn ends(&self, from: u64) -> Option<Vec<u64>> {
        let mut ends = Vec::new();
        let mut seen = HashSet::new();
        let mut next = VecDeque::from([from]);
        while let Some(address) = next.pop_front() {
            if !seen.insert(address) || seen.len() > TO_END {
                continue;
            }
            let Some(instruction) = self.decode(address) else { continue };
            match instruction.flow_control() {
                FlowControl::Call | FlowControl::IndirectCall if self.calls_method(&instruction) => {
                    ends.push(self.file_offset(self.cheapest(instruction.next_ip(), &RESULT))?);
                }
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {
                    next.push_back(instruction.next_ip());
                }
                FlowControl::ConditionalBranch => {
                    next.push_back(instruction.next_ip());
                    next.push_back(instruction.near_branch_target());
                }
                FlowControl::UnconditionalBranch => next.push_back(instruction.near_branch_target()),
                _ => {}
            }
        }
        ends.sort_unstable();
        (1..=MOST_ENDS).contains(&ends.len()).then_some(ends)
    }

    /// From here on, as long as these registers are not written to, the first instruction that the kernel carries out itself when a
    /// probe stands on it (Linux 5.17 to 6.18, `arch/x86/kernel/uprobes.c`: jumps, calls, pushes, `nop`); any other costs a second trap.
    fn cheapest(&self, from: u64, kept: &[Register]) -> u64 {
        let mut factory = InstructionInfoFactory::new();
        let mut next = from;
        for _ in 0..TO_BRANCH {
            let Some(instruction) = self.decode(next) else { return from };
            let is_branch = matches!(
                instruction.code(),
                Code::Call_rel32_64 | Code::Jmp_rel8_64 | Code::Jmp_rel32_64 | Code::Push_r64 | Code::Nopd
            );
            if is_branch || instruction.is_jcc_short_or_near() {
                return next;
            }
            let writes = |used: &UsedRegister| {
                let register = used.register().full_register();
                !matches!(used.access(), OpAccess::Read | OpAccess::CondRead) && kept.contains(&register)
            };
            let passable = instruction.flow_control() == FlowControl::Next
                && !factory.info(&instruction).used_registers().iter().any(writes);
            if !passable {
                return from;
            }
            next = instruction.next_ip();
        }
        from
    }

    fn calls_method(&self, call: &Instruction) -> bool {
        if call.flow_control() == FlowControl::IndirectCall {
            return call.is_ip_rel_memory_operand() && self.slots.contains(&call.ip_rel_memory_address());
        }
        let target = call.near_branch_target();
        self.functions.contains(&target) || self.stub(target).is_some_and(|slot| self.slots.contains(&slot))
    }

    /// The slot a stub of the procedure linkage table jumps through.
    fn stub(&self, address: u64) -> Option<u64> {
        let first = self.decode(address)?;
        let jump = if first.code() == Code::Endbr64 { self.decode(first.next_ip())? } else { first };
        let through_memory =
            jump.flow_control() == FlowControl::IndirectBranch && jump.is_ip_rel_memory_operand();
        through_memory.then(|| jump.ip_rel_memory_address())
    }
}

/// Addresses of the instructions that load one of `targets` into a register: `lea r, [rip+…]`, or `mov r, …` where code has a fixed
/// place. Found by their bytes, for the whole code; a chance hit would have to hit one of a few addresses exactly.
fn loads(section: &Section, register: Register, targets: &HashSet<u64>) -> Vec<u64> {
    let (lea, mov): (&[u8], u8) =
        if register == Register::RDX { (&[0x48, 0x8d, 0x15], 0xba) } else { (&[0x48, 0x8d, 0x35], 0xbe) };
    let word = |at: usize| {
        let bytes = section.bytes.get(at..at + 4)?;
        Some(i32::from_le_bytes(bytes.try_into().ok()?))
    };
    let relative = memmem::find_iter(&section.bytes, lea).filter_map(|at| {
        let address = section.address + at as u64;
        let target = (address + 7).wrapping_add_signed(i64::from(word(at + 3)?));
        targets.contains(&target).then_some(address)
    });
    let fixed = memchr::memchr_iter(mov, &section.bytes).filter_map(|at| {
        let target = u64::from(word(at + 1)?.cast_unsigned());
        targets.contains(&target).then_some(section.address + at as u64)
    });
    let mut found: Vec<u64> = relative.chain(fixed).collect();
    // What only looks like it is told by decoding.
    found.retain(|address| {
        let at = (*address - section.address) as usize;
        let bytes = section.bytes.get(at..).unwrap_or_default();
        let instruction = Decoder::with_ip(64, bytes, *address, DecoderOptions::NONE).decode();
        instruction.op0_kind() == OpKind::Register && instruction.op0_register().full_register() == register
    });
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_interpreter_has_no_entrance() {
        assert_eq!(find(Path::new("/proc/self/exe"), None), Err(NoEntrance::NotPython));
        assert_eq!(find(Path::new("/etc/passwd"), None), Err(NoEntrance::NotElf));
    }

    #[test]
    fn every_interpreter_here_has_one() {
        let home = std::env::var("HOME").unwrap_or_default();
        let versions = std::fs::read_dir(format!("{home}/.pyenv/versions")).into_iter().flatten().flatten();
        let shared = versions.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let minor = name.strip_prefix("3.")?.split('.').next()?.parse::<u32>().ok()?;
            Some((minor, entry.path().join(format!("lib/libpython3.{minor}.so.1.0"))))
        });
        let debian = (11, Path::new("/usr/bin/python3.11").to_path_buf());
        for (minor, path) in shared.chain([debian]).filter(|(minor, path)| *minor >= 9 && path.exists()) {
            let found =
                find(&path, Some(minor)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(found.layout.filename.is_some(), "{}", path.display());
        }
    }
}
