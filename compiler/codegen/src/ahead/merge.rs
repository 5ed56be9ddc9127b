//! The kernels' object copied into the model's: one object file with one exported symbol.

use ir::{Error, Result};
use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{Object as _, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags};
use object::{SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use std::collections::BTreeMap;

fn broken(e: impl std::fmt::Display) -> Error {
    Error::internal(format!("object file: {e}"))
}

/// The model's object with all that the kernels' object defines, local to it, as bytes.
pub fn with_kernels(mut out: Object<'static>, kernels: &[u8]) -> Result<Vec<u8>> {
    let input = object::File::parse(kernels).map_err(broken)?;
    if input.format() != object::BinaryFormat::Elf || out.format() != object::BinaryFormat::Elf {
        return Err(Error::unsupported("ahead of time: objects are made on ELF systems only"));
    }
    let sections = sections(&mut out, &input)?;
    let symbols = symbols(&mut out, &input, &sections)?;
    for s in input.sections() {
        let Some(&section) = sections.get(&s.index().0) else { continue };
        for (offset, r) in s.relocations() {
            let RelocationTarget::Symbol(target) = r.target() else {
                return Err(broken("a relocation without a symbol"));
            };
            let RelocationFlags::Elf { r_type } = r.flags() else {
                return Err(broken("a relocation that is not ELF"));
            };
            let symbol = match symbols.get(&target.0) {
                Some(&s) => s,
                None => return Err(broken("a relocation against a symbol that was left out")),
            };
            let flags = RelocationFlags::Elf { r_type };
            out.add_relocation(section, Relocation { offset, symbol, addend: r.addend(), flags })
                .map_err(broken)?;
        }
    }
    out.write().map_err(broken)
}

/// Code and data; what describes them to debuggers and linkers stays behind.
fn sections(out: &mut Object, input: &object::File) -> Result<BTreeMap<usize, SectionId>> {
    let mut map = BTreeMap::new();
    for s in input.sections() {
        let SectionFlags::Elf { sh_flags, .. } = s.flags() else { continue };
        if sh_flags & u64::from(object::elf::SHF_ALLOC) == 0 {
            continue;
        }
        let name = s.name_bytes().map_err(broken)?.to_vec();
        // Unwind tables are only walked by programs that unwind.
        if name == b".eh_frame" {
            continue;
        }
        let id = out.add_section(Vec::new(), name, s.kind());
        if matches!(s.kind(), SectionKind::UninitializedData | SectionKind::UninitializedTls) {
            out.append_section_bss(id, s.size(), s.align());
        } else {
            out.set_section_data(id, s.data().map_err(broken)?.to_vec(), s.align());
        }
        // Groups are resolved: nothing here is shared with other objects.
        *out.section_flags_mut(id) =
            SectionFlags::Elf { sh_flags: sh_flags & !u64::from(object::elf::SHF_GROUP) };
        map.insert(s.index().0, id);
    }
    Ok(map)
}

fn symbols(
    out: &mut Object,
    input: &object::File,
    sections: &BTreeMap<usize, SectionId>,
) -> Result<BTreeMap<usize, SymbolId>> {
    let mut map = BTreeMap::new();
    for s in input.symbols() {
        let name = s.name_bytes().map_err(broken)?;
        let section = match s.section_index() {
            Some(i) => match sections.get(&i.0) {
                Some(&id) => SymbolSection::Section(id),
                None => continue,
            },
            None if s.is_undefined() && !name.is_empty() => SymbolSection::Undefined,
            None => continue,
        };
        if s.kind() == SymbolKind::Section {
            if let SymbolSection::Section(id) = section {
                map.insert(s.index().0, out.section_symbol(id));
            }
            continue;
        }
        let defined = matches!(section, SymbolSection::Section(_));
        let symbol = Symbol {
            name: name.to_vec(),
            value: s.address(),
            size: s.size(),
            kind: if s.kind() == SymbolKind::Unknown && defined { SymbolKind::Data } else { s.kind() },
            scope: if defined { SymbolScope::Compilation } else { SymbolScope::Unknown },
            weak: s.is_weak() && !defined,
            section,
            flags: SymbolFlags::None,
        };
        let id = match out.symbol_id(name).filter(|&id| !name.is_empty() && out.symbol(id).is_undefined()) {
            Some(id) => {
                if defined {
                    *out.symbol_mut(id) = symbol;
                }
                id
            }
            None => out.add_symbol(symbol),
        };
        map.insert(s.index().0, id);
    }
    Ok(map)
}
