//! Code of the user's, where a panic of it must go no further.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What the code returns, unless it panics.
///
/// What a panic carries is forgotten and not dropped: that is code of the user's, too, and could
/// panic in its turn.
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
