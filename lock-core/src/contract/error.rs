//! The reason why a store could not do what it was asked to do.

use std::{
    borrow::Cow,
    fmt,
    hash::{Hash, Hasher},
    mem,
    sync::Arc,
};

/// The reason why a store could not do what it was asked to do.
///
/// The variants matter: a request that was not answered may have taken a lock, so it is undone; a
/// request that was refused has changed nothing.
///
/// ```
/// # mod lock { pub mod store { pub use lock_core::contract::*; } }
/// use lock::store::StoreError;
///
/// let unknown = StoreError::unavailable("no answer within a second");
/// assert!(unknown.to_string().contains("no answer"));
/// let refused = StoreError::rejected("the disk is full");
/// assert_eq!(refused.to_string(), "the store refused: the disk is full");
/// let missing = StoreError::unsupported("listing");
/// assert_eq!(missing.to_string(), "the store does not support listing");
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum StoreError {
    /// There was no answer, or not in time: the operation may or may not have taken effect.
    Unavailable(Arc<dyn std::error::Error + Send + Sync>),
    /// The store refused: the operation did not take effect.
    Rejected(Arc<dyn std::error::Error + Send + Sync>),
    /// The store does not have this operation.
    Unsupported(Cow<'static, str>),
}

impl StoreError {
    /// Creates the error of an operation whose outcome is not known.
    pub fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::from(source.into()))
    }

    /// Creates the error of an operation that the store refused.
    pub fn rejected(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Rejected(Arc::from(source.into()))
    }

    /// Whether it is certain that nothing was changed.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Unavailable(_))
    }

    /// Whether nothing at all was heard from the store.
    pub(crate) fn is_silence(&self) -> bool {
        let Self::Unavailable(source) = self else { return false };
        !source.downcast_ref::<Failure>().is_some_and(|failure| failure.is_answer)
    }

    /// Creates the error for something that the store never supports: `"status"`, or
    /// `"locks that are held for ever"`.
    pub fn unsupported(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Unsupported(what.into())
    }
}

/// Returns one answer for each item of a batch: an error of the whole call becomes the error of
/// each item.
pub fn answer_each<T>(
    answers: Result<Vec<Result<T, StoreError>>, StoreError>,
    items: usize,
) -> Vec<Result<T, StoreError>> {
    let (mut answers, missing) = match answers {
        Ok(answers) if answers.len() == items => return answers,
        Ok(answers) => {
            let few = "the store gave fewer answers than it was asked for";
            (answers, StoreError::unavailable(few))
        }
        Err(error) => (Vec::new(), error),
    };
    answers.resize_with(items, || Err(missing.clone()));
    answers
}

/// A failure as a store of this crate describes it: which server, what happened and what to change.
///
/// The caller's error shows this text, and its source is what the server or the system said. The
/// text of any other store's error is only a source of the caller's error, and not part of its
/// text.
#[derive(Debug)]
pub struct Failure {
    text: String,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// Whether the server itself reported the failure, and so is reachable.
    is_answer: bool,
}

impl Failure {
    /// Creates a failure with this text, caused by what the server or the system said.
    pub fn new(text: String, cause: Option<Arc<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { text, cause, is_answer: false }
    }

    /// Marks the failure as one that the server itself reported.
    pub fn by_the_server(self) -> Self {
        Self { is_answer: true, ..self }
    }

    /// Returns the error of an operation whose outcome is not known.
    pub fn unavailable(self) -> StoreError {
        StoreError::Unavailable(Arc::new(self))
    }

    /// Returns the error of an operation that the store refused.
    pub fn rejected(self) -> StoreError {
        StoreError::Rejected(Arc::new(self))
    }

    /// Returns what the server or the system said.
    pub fn cause(&self) -> Option<&Arc<dyn std::error::Error + Send + Sync>> {
        self.cause.as_ref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// Hashes the kind alone: the reaction to an error depends on nothing else.
impl Hash for StoreError {
    fn hash<H: Hasher>(&self, state: &mut H) {
        mem::discriminant(self).hash(state);
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(source) => write!(f, "Unavailable({source})"),
            Self::Rejected(source) => write!(f, "Rejected({source})"),
            Self::Unsupported(what) => write!(f, "Unsupported({what})"),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(source) => write!(f, "no answer from the store: {source}"),
            Self::Rejected(source) => write!(f, "the store refused: {source}"),
            Self::Unsupported(what) => write!(f, "the store does not support {what}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unavailable(source) | Self::Rejected(source) => Some(&**source),
            Self::Unsupported(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_of_a_batch_has_an_answer() {
        let two = || Ok(vec![Ok(1), Ok(2)]);
        let count = |answers: Vec<Result<i32, StoreError>>| {
            let silent = answers.iter().filter(|answer| answer.is_err()).count();
            (answers.len(), silent)
        };
        assert_eq!(count(answer_each(two(), 2)), (2, 0));
        assert_eq!(count(answer_each(two(), 3)), (3, 1), "a missing answer is unknown");
        assert_eq!(count(answer_each(two(), 1)), (1, 0));
        assert_eq!(count(answer_each(Err(StoreError::rejected("no")), 3)), (3, 3));
    }

    #[test]
    fn a_failure_says_what_it_is_and_what_the_cause_was() {
        let cause: Arc<dyn std::error::Error + Send + Sync> = Arc::from(Box::from("refused"));
        let failure = || Failure::new("h:6379: no".to_owned(), Some(Arc::clone(&cause)));
        assert_eq!(failure().to_string(), "h:6379: no");
        assert_eq!(std::error::Error::source(&failure()).unwrap().to_string(), "refused");
        let silent = failure().unavailable();
        assert!(silent.is_silence() && !silent.is_refusal());
        let answer = failure().by_the_server().unavailable();
        assert!(!answer.is_silence(), "a server that reports a failure is reachable");
        let refused = failure().rejected();
        assert!(refused.is_refusal() && !refused.is_silence());
        let text = [&silent, &refused, &StoreError::unsupported("status")].map(ToString::to_string);
        assert_eq!(text[0], "no answer from the store: h:6379: no");
        assert_eq!(text[1], "the store refused: h:6379: no");
        assert_eq!(text[2], "the store does not support status");
        assert!(std::error::Error::source(&silent).is_some());
        assert_eq!(format!("{refused:?}"), "Rejected(h:6379: no)");
    }
}
