//! In which process this is.

/// The process that something was made in.
///
/// `fork()` copies the memory of a process, and of its threads only the one that calls it: in the
/// child there is no keeper, and each of its locks is the parent's. A handler that the C library
/// calls in the child says so (`pthread_atfork`), which makes asking as cheap as reading a number.
#[derive(Clone, Debug)]
pub(crate) struct Process(Option<forkguard::Guard>);

impl Process {
    /// This one.
    pub(crate) fn current() -> Self {
        // Fails if there is no memory for the handler; then a child is not told from its parent.
        Self(forkguard::Guard::try_new().ok())
    }

    /// Is it this one still?
    pub(crate) fn is_current(&self) -> bool {
        self.0.as_ref().is_none_or(|guard| !guard.clone().detected_fork())
    }
}
