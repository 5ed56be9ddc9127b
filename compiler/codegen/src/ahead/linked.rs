//! An object loaded into this process, which has its kernels already: what a linker and a C program do, without either.
//! For x86-64 with ELF.

use super::{Made, object};
use artefact::{Model, compress_artefact_run, forget};
use ir::{DType, Error, Graph, Result, Shape, Tensor};
use kernels::{Memory, Tier};
use memmap2::{MmapMut, MmapRaw};
use object::elf::*;
use object::{Object as _, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionKind};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::atomic::AtomicPtr;

/// Code and data are protected by pages; none of a system is larger.
const PAGE: usize = 1 << 16;
/// A jump to the address behind it.
const JUMP: [u8; 6] = [0xff, 0x25, 0, 0, 0, 0];
const STUB: usize = JUMP.len() + 8;

fn broken(e: impl std::fmt::Display) -> Error {
    Error::internal(format!("object file: {e}"))
}

/// A model compiled ahead of time whose object runs here.
pub struct Linked {
    /// Runs write its data, so that no reference to it is made.
    image: MmapRaw,
    run: usize,
    workspace: usize,
    state: usize,
    inputs: Vec<usize>,
    outputs: Vec<(DType, Shape)>,
}

impl Linked {
    /// Compiles `graph` as [`build`](super::build) does and loads the object.
    ///
    /// # Errors
    /// `Unsupported` where an artefact cannot be made of the graph.
    pub fn new(graph: &Graph, tier: Tier) -> Result<Linked> {
        let Made { graph, plan, object } = object(graph, "m", tier, Vec::new())?;
        let file = object.write().map_err(broken)?;
        let (image, symbols) = load(&object::File::parse(&file[..]).map_err(broken)?)?;
        let symbol = |n: &str| symbols.get(n).copied().ok_or_else(|| broken(format!("no symbol {n}")));
        let size = symbol("m_workspace_bytes")?;
        // SAFETY: the object defines this function without parameters and with this result.
        let workspace = unsafe {
            let f: extern "C" fn() -> usize = std::mem::transmute(image.as_ptr().add(size));
            f()
        };
        let outputs = graph.outputs().iter().map(|o| {
            let ty = graph.ty(o.value);
            ty.dtype().zip(ty.concrete()).ok_or_else(|| broken("an output of unknown type"))
        });
        Ok(Linked {
            run: symbol("m_run")?,
            state: symbol("state")?,
            workspace,
            inputs: plan.inputs.iter().map(|p| p.bytes).collect(),
            outputs: outputs.collect::<Result<_>>()?,
            image,
        })
    }

    /// Runs the object's own entry on inputs in the graph's order.
    ///
    /// # Errors
    /// `Data` for other inputs than the graph's, and what the entry returns but 0; `Unsupported` for more inputs and outputs
    /// than are called with here.
    pub fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let sizes = inputs.iter().map(|t| t.bytes().len());
        if !sizes.eq(self.inputs.iter().copied()) {
            return Err(Error::data("inputs of other sizes than the object takes"));
        }
        let mut ports: Vec<Memory> = inputs
            .iter()
            .map(|t| {
                let mut m = Memory::zeroed(t.bytes().len().max(1));
                m.as_mut_slice()[..t.bytes().len()].copy_from_slice(t.bytes());
                m
            })
            .collect();
        let sizes = self.outputs.iter().map(|(dtype, shape)| {
            let n = ir::budget::elements(shape)?;
            Ok(n * dtype.bits() / 8)
        });
        let sizes: Vec<usize> = sizes.collect::<Result<_>>()?;
        ports.extend(sizes.iter().map(|&n| Memory::zeroed(n.max(1))));
        ports.push(Memory::zeroed(self.workspace.max(1)));
        let pointers: Vec<*mut u8> = ports.iter_mut().map(|m| m.as_mut_slice().as_mut_ptr()).collect();
        // SAFETY: the object's entry, called with as many pointers as it has inputs and outputs, and a workspace, each of the
        // bytes that the plan says.
        match unsafe { call(self.image.as_ptr().add(self.run), &pointers) } {
            Some(0) => {}
            Some(status) => return Err(Error::data(format!("the object's entry returned {status}"))),
            None => return Err(Error::unsupported(format!("{} inputs and outputs", pointers.len() - 1))),
        }
        let made = &ports[inputs.len()..];
        self.outputs
            .iter()
            .zip(made)
            .zip(&sizes)
            .map(|(((dtype, shape), m), &n)| Tensor::from_bytes(*dtype, shape, m.as_slice()[..n].to_vec()))
            .collect()
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        // SAFETY: the object's own cell, zero at first, inside its writable data at a multiple of 8; nothing runs any more.
        unsafe { forget(self.image.as_ptr().add(self.state).cast::<AtomicPtr<Model>>()) };
    }
}

/// Calls a function with so many pointers.
///
/// # Safety
/// `f` takes them and returns a status.
unsafe fn call(f: *const u8, p: &[*mut u8]) -> Option<i32> {
    macro_rules! arms {
        ($([$($i:literal)*])*) => {
            match p.len() {
                $(n if n == [$($i),*].len() => {
                    // SAFETY: the caller's contract.
                    let f: extern "C" fn($(arms!(@ $i)),*) -> i32 = unsafe { std::mem::transmute(f) };
                    Some(f($(p[$i]),*))
                })*
                _ => None,
            }
        };
        (@ $i:literal) => { *mut u8 };
    }
    arms!([0] [0 1] [0 1 2] [0 1 2 3] [0 1 2 3 4] [0 1 2 3 4 5] [0 1 2 3 4 5 6] [0 1 2 3 4 5 6 7]
        [0 1 2 3 4 5 6 7 8] [0 1 2 3 4 5 6 7 8 9] [0 1 2 3 4 5 6 7 8 9 10] [0 1 2 3 4 5 6 7 8 9 10 11])
}

/// The address of what an object leaves to others.
fn outside(name: &str) -> Result<usize> {
    if name == "compress_artefact_run" {
        return Ok(compress_artefact_run as *const () as usize);
    }
    let c = CString::new(name).map_err(broken)?;
    // SAFETY: a C string; what it finds is not touched here.
    match unsafe { libc::dlsym(libc::RTLD_DEFAULT, c.as_ptr()) } as usize {
        0 => Err(Error::unsupported(format!("the function {name} is not in this process"))),
        at => Ok(at),
    }
}

/// The object's sections in memory, code executable and the rest writable, and where its symbols lie there.
fn load(file: &object::File) -> Result<(MmapRaw, BTreeMap<String, usize>)> {
    let alloc = |s: &object::Section| match s.flags() {
        object::SectionFlags::Elf { sh_flags, .. } => sh_flags & u64::from(SHF_ALLOC) != 0,
        _ => false,
    };
    // Code first, then a jump for each name from outside; data, then an address for each symbol.
    let (mut end, mut base) = (0usize, BTreeMap::new());
    let mut place = |end: &mut usize, code: bool| -> Result<()> {
        for s in file.sections().filter(|s| alloc(s) && (s.kind() == SectionKind::Text) == code) {
            let at = end.next_multiple_of(s.align().max(1) as usize);
            *end = at.checked_add(s.size() as usize).ok_or_else(|| broken("sections are too large"))?;
            base.insert(s.index().0, at);
        }
        Ok(())
    };
    place(&mut end, true)?;
    let stubs = end.next_multiple_of(16);
    let count = file.symbols().map(|s| s.index().0 + 1).max().unwrap_or(0);
    let text = (stubs + STUB * count).next_multiple_of(PAGE);
    end = text;
    place(&mut end, false)?;
    let slots = end.next_multiple_of(8);
    let mut image = MmapMut::map_anon((slots + 8 * count).max(1)).map_err(broken)?;
    let start = image.as_ptr() as usize;
    for s in file.sections() {
        if let (Some(&at), Ok(data)) = (base.get(&s.index().0), s.data()) {
            image[at..at + data.len()].copy_from_slice(data);
        }
    }
    let (mut symbols, mut target) = (BTreeMap::new(), vec![0usize; count]);
    for s in file.symbols() {
        let (i, name) = (s.index().0, s.name().map_err(broken)?);
        let section = s.section_index().and_then(|k| base.get(&k.0));
        target[i] = match section {
            Some(at) => {
                symbols.insert(name.to_string(), at + s.address() as usize);
                start + at + s.address() as usize
            }
            None if s.is_undefined() && !name.is_empty() => {
                let (to, at) = (outside(name)?, stubs + STUB * i);
                image[at..at + JUMP.len()].copy_from_slice(&JUMP);
                image[at + JUMP.len()..at + STUB].copy_from_slice(&to.to_le_bytes());
                to
            }
            None => continue,
        };
        image[slots + 8 * i..][..8].copy_from_slice(&target[i].to_le_bytes());
    }
    for s in file.sections() {
        let Some(&at) = base.get(&s.index().0) else { continue };
        for (offset, r) in s.relocations() {
            let (RelocationTarget::Symbol(i), RelocationFlags::Elf { r_type }) = (r.target(), r.flags())
            else {
                return Err(broken("a relocation of another kind"));
            };
            let place = at + offset as usize;
            // Jumps reach what is outside through a stub.
            let near = |to: usize| {
                if (start..start + image.len()).contains(&to) { to } else { start + stubs + STUB * i.0 }
            };
            let to = match r_type {
                R_X86_64_64 => {
                    let x = (target[i.0] as i64).wrapping_add(r.addend());
                    image[place..place + 8].copy_from_slice(&x.to_le_bytes());
                    continue;
                }
                R_X86_64_PC32 => target[i.0],
                R_X86_64_PLT32 => near(target[i.0]),
                R_X86_64_GOTPCREL | R_X86_64_GOTPCRELX | R_X86_64_REX_GOTPCRELX => start + slots + 8 * i.0,
                other => return Err(broken(format!("a relocation of kind {other}"))),
            };
            let x = (to as i64).wrapping_add(r.addend()).wrapping_sub((start + place) as i64);
            let x = i32::try_from(x).map_err(|_| broken("a relocation that does not reach"))?;
            image[place..place + 4].copy_from_slice(&x.to_le_bytes());
        }
    }
    // SAFETY: whole pages of the image, which nothing writes from here on.
    let status =
        unsafe { libc::mprotect(image.as_mut_ptr().cast(), text, libc::PROT_READ | libc::PROT_EXEC) };
    if status == 0 { Ok((image.into(), symbols)) } else { Err(broken(std::io::Error::last_os_error())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;
    use crate::compile_with;
    use ir::{Attrs, ValueType};

    fn tensor(n: usize) -> Tensor {
        Tensor::from_f32s(DType::F32, &[2, n], (0..2 * n).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap()
    }

    /// Loops over rows and over other types, kernels with weights, two outputs: what the generated program gives, twice.
    #[test]
    fn objects_compute_what_programs_compute() {
        let mut g = Graph::new("g");
        g.meta.opset = 21;
        let op = |name: &str| ops::standard(name).unwrap();
        let x = g.add_input("x", ValueType::known(DType::F32, &[2, 37]));
        let weights = (0..37 * 5).map(|i| (i % 11) as f32 * 0.125 - 0.5).collect();
        let w = g.add_initializer("w", Tensor::from_f32s(DType::F32, &[37, 5], weights).unwrap());
        let mut apply = |name: &str, attrs, inputs: &[ir::ValueId]| g.apply(name, op(name), attrs, inputs);
        let a = apply("Abs", Attrs::new(), &[x]);
        let r = apply("Sqrt", Attrs::new(), &[a]);
        let s = apply("Mul", Attrs::new(), &[r, x]);
        let p = apply("MatMul", Attrs::new(), &[s, w]);
        let y = apply("Tanh", Attrs::new(), &[p]);
        let t = apply("Floor", Attrs::new(), &[s]);
        let z = apply("Cast", Attrs::new().with("to", 6i64), &[t]);
        g.add_output("y", y);
        g.add_output("z", z);
        ir::infer(&mut g).unwrap();
        let x = tensor(37);
        for tier in [Tier::Portable, Tier::best()] {
            let expected = compile_with(&g, tier, Precision::default()).unwrap();
            let expected = expected.run(&[x.clone().into()], &kernels::Serial).unwrap();
            let object = Linked::new(&g, tier).unwrap();
            for _ in 0..2 {
                let got = object.run(&[&x]).unwrap();
                assert_eq!(expected.len(), got.len());
                for (a, b) in expected.iter().zip(got) {
                    assert_eq!(a.tensor().unwrap(), &b);
                }
            }
            assert!(object.run(&[]).is_err() && object.run(&[&tensor(36)]).is_err());
        }
    }

    /// Comparisons of rows that start anywhere: without AVX they read nothing from memory, which faulted where rows were not
    /// aligned.
    #[test]
    fn comparisons_take_rows_that_are_not_aligned() {
        let mut g = Graph::new("g");
        g.meta.opset = 21;
        let x = g.add_input("x", ValueType::known(DType::F32, &[2, 37]));
        let row = Tensor::from_f32s(DType::F32, &[37], (0..37).map(|i| (i as f32 * 0.37).sin()).collect());
        let r = g.add_initializer("r", row.unwrap());
        let mut apply = |name: &str, a, b| g.apply(name, ops::standard(name).unwrap(), Attrs::new(), &[a, b]);
        let outputs = ["Equal", "Less", "Greater", "Max", "Min"].map(|op| [apply(op, x, r), apply(op, r, x)]);
        for (i, y) in outputs.into_iter().flatten().enumerate() {
            g.add_output(&format!("y{i}"), y);
        }
        ir::infer(&mut g).unwrap();
        let x = tensor(37);
        let expected = compile_with(&g, Tier::Portable, Precision::default()).unwrap();
        let expected = expected.run(&[x.clone().into()], &kernels::Serial).unwrap();
        let got = Linked::new(&g, Tier::Portable).unwrap().run(&[&x]).unwrap();
        assert!(expected.iter().zip(&got).all(|(a, b)| a.tensor().unwrap() == b));
    }
}
