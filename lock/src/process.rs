//! Which process the code runs in, across `fork()`.

/// The process in which a value was made.
///
/// `fork()` copies the memory of a process, but only the thread that calls it: the child has no
/// keeper, and each of its locks is the parent's. The C library calls a handler in the child
/// (`pthread_atfork`), which makes this check as cheap as reading a number.
#[derive(Clone, Debug)]
pub(crate) struct Process(Option<forkguard::Guard>);

impl Process {
    /// The current process.
    pub(crate) fn current() -> Self {
        // Fails if there is no memory for the handler; a child is then taken for its parent.
        Self(forkguard::Guard::try_new().ok())
    }

    /// Is it still the current process?
    pub(crate) fn is_current(&self) -> bool {
        self.0.as_ref().is_none_or(|guard| !guard.clone().detected_fork())
    }
}
