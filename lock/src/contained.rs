//! Runs user code whose panics must go no further.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Returns what the code returns, or `None` if it panics.
///
/// The payload of the panic is forgotten, not dropped: its drop is user code as well, and could
/// panic in turn.
pub(crate) fn contained<R>(code: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(code)).map_err(mem::forget).ok()
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    struct PanicsAgain;

    impl Drop for PanicsAgain {
        fn drop(&mut self) {
            panic!("while it is dropped");
        }
    }

    #[test]
    fn neither_a_panic_nor_what_it_carries_gets_out() {
        assert_eq!(contained(|| 7), Some(7));
        assert_eq!(contained(|| panic!("as any code may")), None::<()>);
        assert_eq!(contained(|| panic_any(PanicsAgain)), None::<()>);
    }
}
