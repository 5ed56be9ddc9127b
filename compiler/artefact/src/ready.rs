//! Calls made ready once, their weights packed for this CPU, and then executed.

use crate::call::{Blob, Call, Finish, Line, Move, Operand, Plan};
use kernels::gather::gather;
use kernels::norm::{NormArgs, normalize_rows};
use kernels::reduce::reduce;
use kernels::resize::{Taps, resize_linear, resize_nearest};
use kernels::softmax::{Softmax, softmax_axis, softmax_rows};
use kernels::transpose::{Element, copy_strided, permute};
use kernels::vecmath;
use kernels::{Epilogue, PackedB, PackedConv, PackedConvTranspose, Residual, Serial, Tier};
use kernels::{conv_f32, conv_transpose_f32, gemm_f32, global_pool_f32, pool_f32};

/// A generated loop over rows: pointers, their strides, rows, elements.
type RowLoop = unsafe extern "C" fn(*const *mut u8, *const i64, i64, i64);
/// A generated loop over units: pointers, begin, end.
type TypedLoop = unsafe extern "C" fn(*const *mut u8, i64, i64);

/// The artefact's own data, as the linker laid it out.
#[derive(Clone, Copy)]
pub struct Image {
    pub constants: *const u8,
    /// Addresses of the generated loops.
    pub code: *const *const u8,
}

impl Image {
    fn floats(&self, b: Blob) -> &'static [f32] {
        // SAFETY: the compiler put these floats there, aligned to 64 bytes, and they are never unloaded while it runs.
        unsafe { std::slice::from_raw_parts(self.constants.add(b.offset).cast(), b.bytes / size_of::<f32>()) }
    }

    fn code(&self, i: usize) -> *const u8 {
        // SAFETY: the compiler counted the loops.
        unsafe { *self.code.add(i) }
    }
}

enum Packed {
    Nothing,
    Conv(PackedConv),
    Product(PackedB),
    ConvTranspose(PackedConvTranspose),
}

/// A plan whose weights are packed.
pub struct Model {
    plan: Plan,
    packed: Vec<Packed>,
    image: Image,
}

// SAFETY: the image is read only.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

/// The memory of one run.
pub struct Memory<'a> {
    pub workspace: *mut u8,
    pub inputs: &'a [*mut u8],
    pub outputs: &'a [*mut u8],
}

impl Model {
    /// Packs all weights.
    pub fn new(plan: Plan, image: Image) -> Result<Model, kernels::Error> {
        let tier = Tier::best();
        let packed = plan
            .steps
            .iter()
            .map(|s| {
                Ok(match &s.call {
                    Call::Conv { shape: c, weights, .. } => {
                        let w = image.floats(*weights);
                        Packed::Conv(PackedConv::for_shape(tier, w, c)?)
                    }
                    Call::ConvTranspose { shape, weights, .. } => {
                        Packed::ConvTranspose(PackedConvTranspose::new(tier, image.floats(*weights), shape)?)
                    }
                    Call::Product { of, weights, .. } => {
                        let w = image.floats(*weights);
                        let nk = || PackedB::from_nk(tier, w, of.n, of.k);
                        Packed::Product(if of.transposed {
                            nk()?
                        } else {
                            PackedB::from_kn(tier, w, of.k, of.n)?
                        })
                    }
                    _ => Packed::Nothing,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Model { plan, packed, image })
    }

    /// Number of inputs, and the alignment of inputs and outputs.
    pub fn ports(&self) -> (usize, &[usize]) {
        (self.plan.inputs, &self.plan.ports)
    }

    /// Executes all steps.
    ///
    /// # Safety
    /// The memory is what the plan was made for.
    pub unsafe fn run(&self, memory: &Memory) -> Result<(), kernels::Error> {
        for (step, packed) in self.plan.steps.iter().zip(&self.packed) {
            let at = |o: &Operand| match *o {
                Operand::Workspace { at, bytes } => (memory.workspace.wrapping_add(at), bytes),
                Operand::Input { at, bytes } => (memory.inputs[at], bytes),
                Operand::Output { at, bytes } => (memory.outputs[at], bytes),
                Operand::Constant { at, bytes } => (self.image.constants.wrapping_add(at).cast_mut(), bytes),
            };
            let io = Io { operands: step.operands.iter().map(at).collect(), inputs: step.inputs };
            self.call(&step.call, packed, &io)?;
        }
        Ok(())
    }

    fn call(&self, call: &Call, packed: &Packed, io: &Io) -> Result<(), kernels::Error> {
        let (pool, tier) = (&Serial, Tier::best());
        match (call, packed) {
            (Call::Conv { shape: s, finish, .. }, Packed::Conv(w)) => {
                let e = self.epilogue(finish, io, s.cout);
                conv_f32(pool, s, io.input(0), s.cin, w, io.output(), s.cout, &e)
            }
            (Call::Product { of, finish, .. }, Packed::Product(w)) => {
                let e = self.epilogue(finish, io, of.n);
                gemm_f32(pool, of.m, io.input(0), of.k, w, io.output(), of.n, of.alpha, &e)
            }
            (Call::ConvTranspose { shape: s, finish, .. }, Packed::ConvTranspose(w)) => {
                let e = self.epilogue(finish, io, s.cout);
                conv_transpose_f32(pool, s, io.input(0), s.cin, w, io.output(), s.cout, &e)
            }
            (&Call::Gather { width, wide, outer, rows, run }, _) => match width {
                1 => pick::<u8>(io, wide, outer, rows, run),
                2 => pick::<u16>(io, wide, outer, rows, run),
                4 => pick::<u32>(io, wide, outer, rows, run),
                _ => pick::<u64>(io, wide, outer, rows, run),
            },
            (Call::Moves { width, fill, list }, _) => match width {
                1 => moves(io, fill.as_deref().map(|f| u8::from_le_bytes(first(f))), list),
                2 => moves(io, fill.as_deref().map(|f| u16::from_le_bytes(first(f))), list),
                4 => moves(io, fill.as_deref().map(|f| u32::from_le_bytes(first(f))), list),
                _ => moves(io, fill.as_deref().map(|f| u64::from_le_bytes(first(f))), list),
            },
            (Call::Nearest { image, rows, columns }, _) => {
                resize_nearest::<f32>(pool, *image, io.input(0), rows, columns, io.output())
            }
            (Call::Linear { image, rows, columns }, _) => {
                resize_linear(pool, *image, io.input(0), taps(rows), taps(columns), io.output())
            }
            (Call::Attention(scores), _) => scores.run(io),
            (&Call::Pool { kind, window: ref w, batch, channels: c }, _) => {
                pool_f32(tier, pool, kind, w, batch, c, io.input(0), c, io.output(), c)
            }
            (&Call::GlobalPool { kind, batch, positions, channels: c }, _) => {
                global_pool_f32(tier, pool, kind, batch, positions, c, io.input(0), c, io.output(), c)
            }
            (&Call::Softmax { log, outer, size, inner }, _) => {
                let kind = if log { Softmax::Log } else { Softmax::Plain };
                if inner == 1 {
                    softmax_rows(pool, kind, io.input(0), io.output(), size, 1.0, None)
                } else {
                    softmax_axis(pool, kind, io.input(0), io.output(), outer, size, inner)
                }
            }
            (&Call::Reduce { op, outer, size, inner }, _) => {
                reduce(pool, op, io.input(0), io.output(), outer, size, inner)
            }
            (&Call::Normalize { norm, size, gamma, beta }, _) => {
                let floats = |b: Option<Blob>| b.map(|b| self.image.floats(b));
                let args = NormArgs { gamma: floats(gamma), beta: floats(beta), ..NormArgs::default() };
                normalize_rows(pool, norm, io.input(0), io.output(), size, args)
            }
            (Call::Map { function }, _) => vecmath::map(*function, io.input(0), io.output()),
            (Call::Permute { width, shape, perm }, _) => match width {
                1 => permute::<u8>(pool, io.input(0), shape, perm, io.output()),
                2 => permute::<u16>(pool, io.input(0), shape, perm, io.output()),
                4 => permute::<u32>(pool, io.input(0), shape, perm, io.output()),
                _ => permute::<u64>(pool, io.input(0), shape, perm, io.output()),
            },
            (Call::Rows { code, outer, rows, strides, n }, _) => {
                self.rows(*code, outer, *rows, strides, *n, io);
                Ok(())
            }
            (&Call::Typed { code, units }, _) => {
                let ptrs: Vec<*mut u8> = io.operands.iter().map(|o| o.0).collect();
                // SAFETY: the loop was generated with this signature, for these operands and this number of units.
                unsafe {
                    let f = std::mem::transmute::<*const u8, TypedLoop>(self.image.code(code));
                    f(ptrs.as_ptr(), 0, units as i64);
                }
                Ok(())
            }
            _ => {
                io.output::<u8>().copy_from_slice(io.input(0));
                Ok(())
            }
        }
    }

    fn epilogue<'a>(&self, f: &Finish, io: &'a Io, row_stride: usize) -> Epilogue<'a> {
        Epilogue {
            bias: f.bias.map(|b| self.image.floats(b)),
            residual: f.residual.map(|r| Residual {
                data: io.input(r.input),
                row_stride,
                after_activation: r.after_activation,
            }),
            slope: None,
            act: f.act,
        }
    }

    fn rows(
        &self,
        code: usize,
        outer: &[(usize, Vec<i64>)],
        rows: usize,
        strides: &[i64],
        n: usize,
        io: &Io,
    ) {
        if n == 0 {
            return;
        }
        // SAFETY: the loop was generated with this signature.
        let f = unsafe { std::mem::transmute::<*const u8, RowLoop>(self.image.code(code)) };
        for turn in 0..outer.iter().map(|o| o.0).product() {
            let mut o: usize = turn;
            let mut ptrs: Vec<*mut u8> = io.operands.iter().map(|o| o.0).collect();
            for (size, steps) in outer {
                let i = (o % size) as i64;
                o /= size;
                ptrs.iter_mut().zip(steps).for_each(|(p, s)| *p = p.wrapping_offset((i * s) as isize));
            }
            // SAFETY: the walk was made from the shapes of these operands.
            unsafe { f(ptrs.as_ptr(), strides.as_ptr(), rows as i64, n as i64) };
        }
    }
}

fn taps(l: &Line) -> Taps<'_> {
    Taps { low: &l.low, high: &l.high, weight: &l.weight }
}

/// The first bytes of a value, zeros where there are too few.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| bytes.get(i).copied().unwrap_or(0))
}

fn pick<T: Element>(
    io: &Io,
    wide: bool,
    outer: usize,
    rows: usize,
    run: usize,
) -> Result<(), kernels::Error> {
    let (table, y) = (io.input::<T>(0), io.output::<T>());
    if wide {
        gather::<T, i64>(&Serial, table, outer, rows, run, io.input(1), y)
    } else {
        gather::<T, i32>(&Serial, table, outer, rows, run, io.input(1), y)
    }
}

fn moves<T: Element>(io: &Io, fill: Option<T>, list: &[Move]) -> Result<(), kernels::Error> {
    let y = io.output::<T>();
    if let Some(x) = fill {
        y.fill(x);
    }
    list.iter().try_for_each(|m| copy_strided(&Serial, io.input::<T>(m.input), m.from, y, m.to, &m.axes))
}

/// Operands of a step, inputs first; all steps here have one output.
pub struct Io {
    operands: Vec<(*mut u8, usize)>,
    inputs: usize,
}

impl Io {
    pub fn input<T>(&self, i: usize) -> &[T] {
        let (p, bytes) = self.operands[i];
        if bytes == 0 {
            return &[];
        }
        // SAFETY: the plan gives each operand memory of its own for as long as the step runs, aligned for its type.
        unsafe { std::slice::from_raw_parts(p.cast(), bytes / size_of::<T>()) }
    }

    #[allow(clippy::mut_from_ref)] // asked once a step
    pub fn output<T>(&self) -> &mut [T] {
        let (p, bytes) = self.operands[self.inputs];
        if bytes == 0 {
            return &mut [];
        }
        // SAFETY: as for inputs; the output overlaps none of them.
        unsafe { std::slice::from_raw_parts_mut(p.cast(), bytes / size_of::<T>()) }
    }
}
