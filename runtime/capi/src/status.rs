//! Status codes, and the message behind the last one of each thread.

use ir::{Blame, Error};
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::AssertUnwindSafe;

/// What became of a call: who has to act when it is not COMPRESS_OK.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum compress_status {
    /// Done.
    COMPRESS_OK = 0,
    /// The model breaks a rule of its format or of an operator.
    COMPRESS_BAD_MODEL = 1,
    /// The model is valid, but uses something that is not implemented.
    COMPRESS_UNSUPPORTED = 2,
    /// A size is above the limit.
    COMPRESS_LIMIT = 3,
    /// The inputs do not fit the model, or a file cannot be read.
    COMPRESS_BAD_DATA = 4,
    /// A bug of this library, worth reporting.
    COMPRESS_INTERNAL = 5,
    /// A pointer is null, an index out of range or a number not one of its enumeration.
    COMPRESS_BAD_ARGUMENT = 6,
}

/// Why a call fails.
pub enum Failure {
    Error(Error),
    Argument(String),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure::Error(e)
    }
}

/// A call's misuse.
pub fn argument(text: impl Into<String>) -> Failure {
    Failure::Argument(text.into())
}

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

fn fail(status: compress_status, text: String) -> compress_status {
    let text = CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default();
    // During the end of a thread there is nobody left to read it.
    let _ = MESSAGE.try_with(|m| *m.borrow_mut() = text);
    status
}

/// Runs the body of a C function.
pub fn guard(body: impl FnOnce() -> Result<(), Failure>) -> compress_status {
    use compress_status::*;
    match std::panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => COMPRESS_OK,
        Ok(Err(Failure::Argument(text))) => fail(COMPRESS_BAD_ARGUMENT, text),
        Ok(Err(Failure::Error(e))) => {
            let status = match e.blame {
                Blame::Model => COMPRESS_BAD_MODEL,
                Blame::Unsupported => COMPRESS_UNSUPPORTED,
                Blame::Limit => COMPRESS_LIMIT,
                Blame::Data => COMPRESS_BAD_DATA,
                Blame::Internal => COMPRESS_INTERNAL,
            };
            fail(status, e.to_string())
        }
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
            // A payload may panic when it is dropped.
            std::mem::forget(panic);
            fail(COMPRESS_INTERNAL, format!("internal error: {}", text.unwrap_or_default()))
        }
    }
}

/// As [`guard`] for functions that give a number; `otherwise` when the body fails.
pub fn number<T>(otherwise: T, body: impl FnOnce() -> Result<T, Failure>) -> T {
    let mut result = otherwise;
    guard(|| {
        result = body()?;
        Ok(())
    });
    result
}

/// What went wrong in the last call of this thread that failed; never null. Valid until the next call that fails.
#[unsafe(no_mangle)]
pub extern "C" fn compress_message() -> *const c_char {
    MESSAGE.try_with(|m| m.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}
