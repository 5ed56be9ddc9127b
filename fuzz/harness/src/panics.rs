//! Panics as values, without their usual noise.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static DEPTH: RefCell<usize> = const { RefCell::new(0) };
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The result, or what the panic said and where. Nothing is printed.
pub fn quietly<T>(f: AssertUnwindSafe<impl FnOnce() -> T>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    // Under libFuzzer the hook that ends the process stays.
    HOOK.call_once(|| {
        if cfg!(feature = "libfuzzer") {
            return;
        }
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.with(|d| *d.borrow()) == 0 {
                return before(info);
            }
            let at = info.location().map_or(String::new(), |l| format!(" at {}:{}", l.file(), l.line()));
            let what = info.payload_as_str().unwrap_or("unknown cause");
            LAST.with(|l| *l.borrow_mut() = format!("{what}{at}"));
        }));
    });
    DEPTH.with(|d| *d.borrow_mut() += 1);
    let result = catch_unwind(f);
    DEPTH.with(|d| *d.borrow_mut() -= 1);
    result.map_err(|_| LAST.with(|l| std::mem::take(&mut *l.borrow_mut())))
}
