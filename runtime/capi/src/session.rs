//! Sessions: open, describe, run, close.

use crate::outputs::compress_outputs;
use crate::status::{Failure, argument, compress_status, guard, number};
use crate::tensor::{compress_port, compress_tensor, name, slice, text};
use runtime::{Dim, Input, Options, Port, Session};
use std::ffi::{CString, c_char};

/// A model ready to run.
pub struct compress_session {
    session: Session,
    inputs: Vec<Described>,
    outputs: Vec<Described>,
}

/// A port in memory that C can read.
struct Described {
    name: CString,
    dtype: i32,
    shape: Option<Vec<i64>>,
}

impl Described {
    fn new(p: Port) -> Described {
        let size = |d: &Dim| d.known().and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
        Described {
            name: name(p.name),
            dtype: p.dtype.map_or(0, |d| d.onnx()),
            shape: p.shape.map(|s| s.iter().map(size).collect()),
        }
    }

    fn port(&self) -> compress_port {
        compress_port {
            name: self.name.as_ptr(),
            dtype: self.dtype,
            shape: self.shape.as_ref().map_or(std::ptr::null(), |s| s.as_ptr()),
            rank: self.shape.as_ref().map_or(0, Vec::len),
        }
    }
}

/// What a handle points to.
///
/// # Safety
/// `p` is null or points to a live value that nobody changes during the call.
pub(crate) unsafe fn shared<'a, T>(p: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's contract.
    unsafe { p.as_ref() }.ok_or_else(|| argument(format!("{what} is null")))
}

/// Writes `value` to where C wants it.
///
/// # Safety
/// `out` is null or points to memory for a `T`.
pub(crate) unsafe fn give<T>(out: *mut T, value: T) -> Result<(), Failure> {
    if out.is_null() {
        return Err(argument("the place for the result is null"));
    }
    // SAFETY: not null; the rest is the caller's contract.
    unsafe { out.write(value) };
    Ok(())
}

fn options(threads: usize) -> Options {
    if threads == 0 { Options::default() } else { Options::default().threads(threads) }
}

fn boxed(session: Session) -> *mut compress_session {
    let inputs = session.inputs().map(Described::new).collect();
    let outputs = session.outputs().map(Described::new).collect();
    Box::into_raw(Box::new(compress_session { session, inputs, outputs }))
}

/// Opens the model file at `path` (UTF-8, ends with 0) for runs on `threads` threads; 0 means all cores. On success
/// `*session` must be closed with compress_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_open(
    path: *const c_char,
    threads: usize,
    session: *mut *mut compress_session,
) -> compress_status {
    guard(|| {
        // SAFETY: the caller's contract.
        unsafe { give(session, std::ptr::null_mut()) }?;
        // SAFETY: as above.
        let path = unsafe { text(path, "the path") }?;
        // SAFETY: as above; null was found.
        unsafe { give(session, boxed(options(threads).open(path)?)) }
    })
}

/// As compress_open, with compiled programs and packed weights kept in the folder `cache` (UTF-8, ends with 0), so that a
/// model that was opened before starts without being read or compiled. Others must not be able to write to the folder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_open_cached(
    path: *const c_char,
    threads: usize,
    cache: *const c_char,
    session: *mut *mut compress_session,
) -> compress_status {
    guard(|| {
        // SAFETY: the caller's contract.
        unsafe { give(session, std::ptr::null_mut()) }?;
        // SAFETY: as above.
        let (path, cache) = unsafe { (text(path, "the path")?, text(cache, "the cache")?) };
        // SAFETY: as above; null was found.
        unsafe { give(session, boxed(options(threads).cache(cache).open(path)?)) }
    })
}

/// As compress_open for a model of `bytes` bytes in memory, which is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_open_memory(
    model: *const u8,
    bytes: usize,
    threads: usize,
    session: *mut *mut compress_session,
) -> compress_status {
    guard(|| {
        // SAFETY: the caller's contract.
        unsafe { give(session, std::ptr::null_mut()) }?;
        // SAFETY: as above.
        let model = unsafe { slice(model, bytes, "the model") }?.to_vec();
        // SAFETY: as above; null was found.
        unsafe { give(session, boxed(options(threads).from_bytes(model)?)) }
    })
}

/// Closes a session; null is allowed. Outputs of its runs stay valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_close(session: *mut compress_session) {
    guard(|| {
        if !session.is_null() {
            // SAFETY: the caller's contract: it came from `Box::into_raw` and is closed once.
            drop(unsafe { Box::from_raw(session) });
        }
        Ok(())
    });
}

/// Number of inputs the model takes; 0 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_input_count(session: *const compress_session) -> usize {
    // SAFETY: the caller's contract.
    number(0, || Ok(unsafe { shared(session, "the session") }?.inputs.len()))
}

/// Number of outputs the model gives; 0 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_output_count(session: *const compress_session) -> usize {
    // SAFETY: the caller's contract.
    number(0, || Ok(unsafe { shared(session, "the session") }?.outputs.len()))
}

/// Describes input `index`. The description is valid until the session is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_input(
    session: *const compress_session,
    index: usize,
    port: *mut compress_port,
) -> compress_status {
    // SAFETY: the caller's contract.
    guard(|| unsafe { describe(&shared(session, "the session")?.inputs, index, port) })
}

/// Describes output `index`. The description is valid until the session is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_output(
    session: *const compress_session,
    index: usize,
    port: *mut compress_port,
) -> compress_status {
    // SAFETY: the caller's contract.
    guard(|| unsafe { describe(&shared(session, "the session")?.outputs, index, port) })
}

/// # Safety
/// `port` is null or points to memory for a description.
unsafe fn describe(list: &[Described], index: usize, port: *mut compress_port) -> Result<(), Failure> {
    let found = list.get(index).ok_or_else(|| argument(format!("index {index} of {}", list.len())))?;
    // SAFETY: the caller's contract.
    unsafe { give(port, found.port()) }
}

/// # Safety
/// `session` is null or open; `inputs` is null or points to `count` tensors whose pointers hold for the call.
unsafe fn with_inputs<T>(
    session: *const compress_session,
    inputs: *const compress_tensor,
    count: usize,
    f: impl FnOnce(&Session, &[(&str, Input)]) -> ir::Result<T>,
) -> Result<T, Failure> {
    // SAFETY: the caller's contract.
    let session = unsafe { shared(session, "the session") }?;
    // SAFETY: as above.
    let list = unsafe { slice(inputs, count, "the inputs") }?;
    let inputs = list
        .iter()
        // SAFETY: as above.
        .map(|t| unsafe { t.read() })
        .collect::<Result<Vec<_>, Failure>>()?;
    Ok(f(&session.session, &inputs)?)
}

/// Runs the model on `count` inputs, given by name in any order; their memory is read during the call only. On success
/// `*outputs` must be freed with compress_outputs_free. The first run with new shapes compiles.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_run(
    session: *const compress_session,
    inputs: *const compress_tensor,
    count: usize,
    outputs: *mut *mut compress_outputs,
) -> compress_status {
    guard(|| {
        // SAFETY: the caller's contract.
        unsafe { give(outputs, std::ptr::null_mut()) }?;
        // SAFETY: as above.
        let results = unsafe { with_inputs(session, inputs, count, |s, i| s.run(i)) }?;
        // SAFETY: as above; null was found.
        unsafe { give(outputs, Box::into_raw(Box::new(compress_outputs::new(&results)))) }
    })
}

/// Compiles for inputs of these types and shapes, so that the next compress_run does not have to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_warm_up(
    session: *const compress_session,
    inputs: *const compress_tensor,
    count: usize,
) -> compress_status {
    // SAFETY: the caller's contract.
    guard(|| unsafe { with_inputs(session, inputs, count, |s, i| s.warm_up(i)) })
}
