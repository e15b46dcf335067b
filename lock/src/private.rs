//! The runtime half of the attributes. Not public API: it changes without notice.

use std::{
    array,
    fmt::{self, Display},
    future::Future,
    marker::PhantomData,
    panic::resume_unwind,
    pin::{Pin, pin},
    sync::OnceLock,
    time::Duration,
};

use tokio::{runtime::Handle, task::JoinHandle};

#[cfg(feature = "redis")]
use crate::store::{AdminStore, DebounceStore, DurableStore, Store};

pub(crate) use crate::under::run_under;
use crate::under::run_under_all;
use crate::{
    Debounce, Error, ErrorKind, Lock, LockGuard, Locks, debounce::spawn_on, id::Named,
    lock::Request,
};

/// What becomes of a body whose lock is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLost {
    /// It is dropped at its next `.await`.
    Stop,
    /// It goes on to its end.
    Continue,
}

/// What a `#[locked]` function does when its caller runs under its lock already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reentry {
    /// It fails with kind `Deadlock`.
    Refused,
    /// Its body runs under the caller's guard.
    Allowed,
}

/// Where the guard of one call of a `#[locked]` function is, once there is one.
///
/// The body is made before the lock is acquired, so that no argument lives in the function's
/// future a second time; it finds the guard through this.
#[derive(Debug, Default)]
pub struct Held(OnceLock<LockGuard>);

impl Held {
    /// No guard yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// No guards yet, of a function with several locks.
    #[must_use]
    pub const fn several<const N: usize>() -> [Self; N] {
        [const { Self::new() }; N]
    }

    /// The guard, for the body.
    pub fn guard(&self) -> &LockGuard {
        self.0.get().expect("BUG: a body runs only while the lock is held")
    }
}

/// Acquires the lock of a `#[locked]` function and runs its body, which the caller drops before
/// it calls [`finish`].
pub async fn run<F: Future>(
    held: &Held,
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Lock) -> Lock,
    (on_lost, reentry): (OnLost, Reentry),
    body: Pin<&mut F>,
) -> Result<F::Output, Error> {
    let request = configure(locks?.lock(id)).request()?;
    let outer = request.outer();
    let guard = enter(request, outer, reentry).await?;
    run_under(held.0.get_or_init(|| guard), on_lost, body).await
}

// Input: the guard of the same lock that the code that asks runs under, if it does.
async fn enter(
    request: Request,
    outer: Option<LockGuard>,
    reentry: Reentry,
) -> Result<LockGuard, Error> {
    match (outer, reentry) {
        (Some(outer), Reentry::Allowed) => Ok(outer),
        (Some(_), Reentry::Refused) => Err(request.deadlock()),
        (None, _) => request.acquire().await,
    }
}

/// Releases what is held, if anything; the result stands whatever becomes of that.
pub async fn finish<T, E>(held: Held, result: Result<T, E>) -> Result<T, E> {
    if let Some(guard) = held.0.into_inner()
        && !guard.is_alias()
    {
        let _ = guard.release().await;
    }
    result
}

/// One of several locks of a function, before it is acquired.
#[must_use]
pub struct Wanted {
    request: Result<Request, Error>,
    on_lost: OnLost,
    reentry: Reentry,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").finish_non_exhaustive()
    }
}

/// One of the locks for [`run_all`].
pub fn want(
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Lock) -> Lock,
    (on_lost, reentry): (OnLost, Reentry),
) -> Wanted {
    let request = locks.and_then(|locks| configure(locks.lock(id)).request());
    Wanted { request, on_lost, reentry }
}

/// Does what [`run`] does, under several locks; the number of an error is that of the lock it
/// happened to. The caller calls [`finish_all`].
///
/// The locks are taken in the order of their keys, whatever the order of the attributes: so no
/// two functions can each hold what the other waits for.
pub async fn run_all<const N: usize, F: Future>(
    held: &[Held; N],
    wanted: [Wanted; N],
    body: Pin<&mut F>,
) -> Result<F::Output, (usize, Error)> {
    let on_lost = wanted.each_ref().map(|wanted| wanted.on_lost);
    // Nothing is taken if one of them cannot be.
    let mut requests = Vec::with_capacity(N);
    for (number, Wanted { request, reentry, .. }) in wanted.into_iter().enumerate() {
        let request = request.map_err(|error| (number, error))?;
        requests.push((number, reentry, request));
    }
    // Of two that are one lock, the one that may come second comes second.
    requests.sort_by(|(_, a_mode, a), (_, b_mode, b)| {
        let may_come_second = |mode: &Reentry| *mode == Reentry::Allowed;
        (a.key(), may_come_second(a_mode)).cmp(&(b.key(), may_come_second(b_mode)))
    });
    for (number, reentry, request) in requests {
        let mut taken = held.iter().filter_map(|held| held.0.get());
        let outer = taken.find_map(|guard| request.same_as(guard)).or_else(|| request.outer());
        let guard = enter(request, outer, reentry).await.map_err(|error| (number, error))?;
        let _ = held[number].0.set(guard);
    }
    let guards: [_; N] = array::from_fn(|number| (held[number].guard(), on_lost[number]));
    run_under_all(guards, body).await
}

/// Does what [`finish`] does, for several locks.
pub async fn finish_all<const N: usize, T>(held: [Held; N], result: T) -> T {
    for held in held {
        let _ = finish(held, Ok::<(), Error>(())).await;
    }
    result
}

/// The Redis store by itself, for the tests that compare the engines.
#[cfg(feature = "redis")]
pub async fn redis_store(
    client: redis::Client,
) -> Result<impl Store + AdminStore + DebounceStore + DurableStore, Error> {
    let endpoint = crate::store::redis::Endpoint::of_client(client);
    let store = crate::store::redis::RedisStore::new(endpoint, Default::default())?;
    store.connect().await?;
    Ok(store)
}

/// The `Locks` that the attribute names.
pub fn given(locks: &Locks) -> Result<Locks, Error> {
    Ok(locks.clone())
}

/// The task's `Locks`, else the process's.
pub fn ambient() -> Result<Locks, Error> {
    Locks::current().ok_or_else(|| {
        Error::new(
            ErrorKind::NotInstalled,
            "no `Locks` to use: add `locks.install()` at the start of `main`, or wrap the call in \
             `locks.scope(..)`, or name one with `locks = ..` in the attribute",
        )
    })
}

/// Calls a `#[debounced]` function and runs its body, which the caller drops before it calls
/// [`finish`].
// Not an `async fn`: that would keep a place for each argument in its future.
pub fn debounce<F: Future>(
    held: &Held,
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
    body: Pin<&mut F>,
) -> impl Future<Output = Result<Option<F::Output>, Error>> {
    let debounce = locks.map(|locks| configure(locks.debounce(id)));
    async move {
        let claimed = match debounce {
            Ok(ref debounce) => debounce.claim().await?,
            Err(error) => return Err(error),
        };
        let Some(guard) = claimed else { return Ok(None) };
        run_under(held.0.get_or_init(|| guard), OnLost::Stop, body).await.map(Some)
    }
}

/// Calls a `#[debounced]` function whose run takes locks; the caller calls [`finish_all`], and
/// [`finish`] for the run.
pub async fn debounce_under<const N: usize, F: Future>(
    (run_held, held): (&Held, &[Held; N]),
    wanted: [Wanted; N],
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
    body: Pin<&mut F>,
) -> Result<Option<Result<F::Output, (usize, Error)>>, Error> {
    let run = pin!(run_all(held, wanted, body));
    debounce(run_held, locks, id, configure, run).await
}

/// Makes the call of a detached function. The caller waits for it, as for one that is not.
pub fn begin(
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
) -> Result<impl Future<Output = Result<Option<LockGuard>, Error>> + Send + 'static, Error> {
    let (debounce, keys) = ready(locks, id, configure)?;
    Ok(debounce.begin(Ok(keys)))
}

/// What a call is made with, if it may be made here.
fn ready(
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
) -> Result<(Debounce, (Named, Named)), Error> {
    let debounce = configure(locks?.debounce(id));
    let keys = debounce.keys_outside_of_own_run()?;
    Ok((debounce, keys))
}

/// Waits for a call that was [begun](begin), and does what [`debounce`] does.
pub async fn debounce_begun<F: Future>(
    held: &Held,
    begun: Result<impl Future<Output = Result<Option<LockGuard>, Error>>, Error>,
    body: Pin<&mut F>,
) -> Result<Option<F::Output>, Error> {
    let Some(guard) = begun?.await? else { return Ok(None) };
    run_under(held.0.get_or_init(|| guard), OnLost::Stop, body).await.map(Some)
}

/// Makes the call of a detached function whose run takes locks; the number of an error is that of
/// the lock it happened to.
///
/// A lock that the caller runs under is refused here, where that is known, `reentrant` or not: the
/// task of the run would wait for the caller, which waits for it, and it cannot run under a guard
/// that its caller may drop.
pub fn begin_under<const N: usize>(
    wanted: &[Wanted; N],
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
) -> BegunUnder<impl Future<Output = Result<Option<LockGuard>, Error>> + Send + 'static> {
    let (debounce, keys) = match ready(locks, id, configure) {
        Ok(ready) => ready,
        Err(error) => return Ok(Err(error)),
    };
    for (number, Wanted { request, .. }) in wanted.iter().enumerate() {
        if let Some(outer) = request.as_ref().ok().and_then(Request::outer) {
            let message = "a detached call takes this lock in a task of its own, and the code that \
                           calls it runs under the lock and would wait for itself: call it after \
                           that, or leave `detached` out and add `reentrant` to the `#[locked]`";
            let error = Error::new(ErrorKind::Deadlock, message).on(outer.shared_id());
            return Err((number, error));
        }
    }
    Ok(Ok(debounce.begin(Ok(keys))))
}

/// A call that was begun, or why not.
type BegunUnder<F> = Result<Result<F, Error>, (usize, Error)>;

/// Does what [`debounce_under`] does, for a call that was [begun](begin_under).
pub async fn debounce_begun_under<const N: usize, F: Future>(
    (run_held, held): (&Held, &[Held; N]),
    wanted: [Wanted; N],
    begun: BegunUnder<impl Future<Output = Result<Option<LockGuard>, Error>>>,
    body: Pin<&mut F>,
) -> Result<Option<Under<F::Output>>, Error> {
    match begun {
        Ok(begun) => {
            let run = pin!(run_all(held, wanted, body));
            debounce_begun(run_held, begun, run).await
        }
        Err(refused) => Ok(Some(Err(refused))),
    }
}

/// The call of a detached function, its arguments included.
// The attribute turns its future into one of these, so that what the compiler says of the future is
// about the user's code: it would name the bound of a function here, and show this file.
pub type DetachedCall<T> = Pin<Box<dyn Future<Output = Result<Option<T>, Error>> + Send>>;

/// What a detached function must return.
#[diagnostic::on_unimplemented(
    message = "a detached call cannot return a value of type `{Self}`",
    label = "this is not `Send`, so it stays in the task of the call",
    note = "a detached call runs in a task of its own, so what it returns must be `Send`, as `Box<dyn Error + Send + Sync>` is for `Box<dyn Error>`"
)]
pub trait DetachedOutput: Sized {
    /// Runs a call in a task of its own, which goes on if the caller goes away.
    fn detached(call: DetachedCall<Self>) -> DetachedTask<Self>;

    /// The same for a call that takes locks.
    fn detached_under(call: DetachedCall<Under<Self>>) -> DetachedTask<Under<Self>>;
}

#[diagnostic::do_not_recommend]
impl<T: Send + 'static> DetachedOutput for T {
    fn detached(call: DetachedCall<T>) -> DetachedTask<T> {
        detach(call)
    }

    fn detached_under(call: DetachedCall<Under<T>>) -> DetachedTask<Under<T>> {
        detach(call)
    }
}

/// What a body that takes locks makes; the number of an error is that of the lock it happened to.
type Under<T> = Result<T, (usize, Error)>;

/// The task of a detached call.
#[must_use]
#[derive(Debug)]
pub struct DetachedTask<T>(Result<JoinHandle<Result<Option<T>, Error>>, Error>);

fn detach<T: Send + 'static>(call: DetachedCall<T>) -> DetachedTask<T> {
    DetachedTask(match Handle::try_current() {
        Ok(runtime) => Ok(spawn_on(&runtime, call)),
        Err(_) => Err(Error::invalid(
            "a detached call is run by the Tokio runtime of its caller, and this is outside of one: \
             call it in a task",
        )),
    })
}

impl<T> DetachedTask<T> {
    /// Waits for the call. A panic of the body is one of a caller that waits.
    pub async fn join(self) -> Result<Option<T>, Error> {
        match self.0?.await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => Err(Error::new(
                    ErrorKind::Closed,
                    "the runtime that ran this detached call was shut down",
                )),
            },
        }
    }
}

/// The arguments of a durable function, as one value.
#[cfg(feature = "durable")]
#[diagnostic::on_unimplemented(
    message = "arguments of the types `{Self}` cannot be kept in the store",
    label = "not all of these can be written and read by serde",
    note = "derive `serde::Serialize` and `serde::Deserialize` for each type"
)]
pub trait Stored: serde::Serialize + serde::de::DeserializeOwned + Send + 'static {}

// Not recommended, or the message would be one for each trait of serde, and not name the fix.
#[cfg(feature = "durable")]
#[diagnostic::do_not_recommend]
impl<A: serde::Serialize + serde::de::DeserializeOwned + Send + 'static> Stored for A {}

/// Registers a durable function for the id of a debounce.
#[cfg(feature = "durable")]
type Register<A> = Box<dyn Fn(&Debounce) -> Result<crate::Durable<A>, Error>>;

/// A durable function: made in one place, so that what is wrong with it is said once.
#[cfg(feature = "durable")]
pub struct DurableFunction<A> {
    register: Register<A>,
    encode: fn(&A) -> Result<String, Error>,
}

#[cfg(feature = "durable")]
impl<A> fmt::Debug for DurableFunction<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableFunction").finish_non_exhaustive()
    }
}

/// What is known of a durable function.
#[cfg(feature = "durable")]
pub fn durable_function<A, F, Fut>(name: &'static str, handler: F) -> DurableFunction<A>
where
    A: Stored,
    F: Fn(A, crate::DurableRun) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: crate::DurableOutput,
{
    DurableFunction {
        register: Box::new(move |debounce| debounce.durable(name, handler)),
        encode: crate::durable::encode,
    }
}

/// Keeps the call of a durable function.
#[cfg(feature = "durable")]
pub async fn durable_call<A>(
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
    function: fn() -> DurableFunction<A>,
    arguments: A,
) -> Result<crate::Receipt, Error> {
    let (durable, arguments) = {
        let DurableFunction { register, encode } = function();
        let durable = register(&configure(locks?.debounce(id)))?;
        let arguments = encode(&arguments).map_err(|error| durable.about(error))?;
        (durable, arguments)
    };
    durable.keep(arguments).await
}

/// Lets this process run the calls of a durable function.
#[cfg(feature = "durable")]
pub fn durable_register<A>(
    locks: &Locks,
    name: &str,
    configure: impl FnOnce(Debounce) -> Debounce,
    function: fn() -> DurableFunction<A>,
) -> Result<(), Error> {
    (function().register)(&configure(locks.debounce(name))).map(drop)
}

/// A duration of an attribute's argument.
#[must_use]
pub const fn milliseconds(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The id that an expression gives, taken as it is.
pub fn display<T: Display + ?Sized>(id: &T) -> String {
    id.to_string()
}

/// Is it the error of a lock that somebody holds?
#[must_use]
pub fn is_busy(error: &Error) -> bool {
    error.kind() == ErrorKind::Busy
}

/// Gives the closure of `or_else` the type of its argument and of its result.
pub fn or_else<T, F: FnOnce(Error) -> T>(closure: F) -> F {
    closure
}

/// The same for a result that the user has not named: it is what the body makes.
pub fn or_else_of<T, F: FnOnce(Error) -> T>(_: PhantomData<T>, closure: F) -> F {
    closure
}

/// The type of what a body makes.
#[must_use]
pub fn output_of<T, E>(_: &Result<T, E>) -> PhantomData<T> {
    PhantomData
}

/// What an argument must be for `or_else` to use it.
#[diagnostic::on_unimplemented(
    message = "`or_else` cannot use an argument of type `{Self}`",
    label = "this is gone when `or_else` runs",
    note = "the body takes all arguments, and they are dropped before the release; only those that are `Copy`, such as shared references and numbers, are still there"
)]
pub trait Copied {
    /// Does nothing: that it is called says that the argument is used.
    fn copied(&self);
}

#[diagnostic::do_not_recommend]
impl<T: Copy> Copied for T {
    fn copied(&self) {}
}

/// An id made of a template.
#[derive(Debug, Default)]
pub struct Id(String);

impl Id {
    /// An empty id.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Text of the template, as it is.
    pub fn literal(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// A value, escaped: every character but alphanumerics, `-`, `_` and `.` becomes the `%XX` of
    /// its bytes, so that no value can look like text of the template, or like two values.
    pub fn value<T: Display + ?Sized>(&mut self, value: &T) {
        use fmt::Write;

        // A `String` takes everything. A value that cannot be shown would give the id of another
        // one, so this panics, as `format!` does.
        write!(Escaped(&mut self.0), "{value}").expect("a value of an id cannot be shown");
    }

    /// The id.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_alphanumeric() || matches!(character, '-' | '_' | '.') {
                self.0.push(character);
            } else {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    write!(self.0, "%{byte:02X}")?;
                }
            }
        }
        Ok(())
    }
}

/// A return type through which a lock error can leave.
// The implementations are not recommended, or the message would only say that some error type
// is not `From<lock::Error>`, and name neither way out.
#[diagnostic::on_unimplemented(
    message = "`#[locked]` cannot report a lock error through `{Self}`",
    label = "a lock error cannot leave through this type",
    note = "return a `Result<_, E>` where `E: From<lock::Error>`",
    note = "or make the value yourself: add `or_else = |error| ..` to the attribute"
)]
pub trait LockedOutput {
    /// The value that carries the error.
    fn from_lock_error(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T, E: From<Error>> LockedOutput for Result<T, E> {
    fn from_lock_error(error: Error) -> Self {
        Err(error.into())
    }
}

/// The same for `#[debounced]`, whose output has an `Option` in it.
#[diagnostic::on_unimplemented(
    message = "`#[debounced]` cannot report a lock error through `{Self}`",
    label = "a lock error cannot leave through this type",
    note = "return a `Result<_, E>` where `E: From<lock::Error>`",
    note = "or make the value yourself: add `or_else = |error| ..` to the attribute"
)]
pub trait DebouncedOutput {
    /// The value that carries the error.
    fn from_lock_error(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T, E: From<Error>> DebouncedOutput for Result<Option<T>, E> {
    fn from_lock_error(error: Error) -> Self {
        Err(error.into())
    }
}

/// A return type that has an empty value, for `skip`.
#[diagnostic::on_unimplemented(
    message = "`skip` has no empty value of `{Self}`",
    label = "this type has no empty value",
    note = "when the lock is busy, `skip` returns the empty value of `()`, `Option<T>`, `Result<(), E>` or `Result<Option<T>, E>`"
)]
pub trait Skipped {
    /// The empty value.
    fn skipped() -> Self;
}

#[diagnostic::do_not_recommend]
impl Skipped for () {
    fn skipped() -> Self {}
}

#[diagnostic::do_not_recommend]
impl<T> Skipped for Option<T> {
    fn skipped() -> Self {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<E> Skipped for Result<(), E> {
    fn skipped() -> Self {
        Ok(())
    }
}

#[diagnostic::do_not_recommend]
impl<T, E> Skipped for Result<Option<T>, E> {
    fn skipped() -> Self {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(values: &[&str]) -> String {
        let mut id = Id::new();
        for value in values {
            id.literal(":");
            id.value(*value);
        }
        id.finish()
    }

    #[test]
    fn plain_values_stay_readable() {
        assert_eq!(id(&["42", "a-b_c.d", "Ärger"]), ":42:a-b_c.d:Ärger");
    }

    #[test]
    #[should_panic(expected = "a value of an id cannot be shown")]
    fn a_value_that_is_shown_in_part_gives_no_id() {
        struct Half;
        impl Display for Half {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half")?;
                Err(fmt::Error)
            }
        }
        Id::new().value(&Half);
    }

    #[test]
    fn values_cannot_look_like_the_template_or_like_each_other() {
        assert_eq!(id(&["a:b", "c"]), ":a%3Ab:c");
        assert_ne!(id(&["a:b", "c"]), id(&["a", "b:c"]));
        assert_ne!(id(&["a%3Ab"]), id(&["a:b"]));
        assert_eq!(id(&["~{x}\n", "€"]), ":%7E%7Bx%7D%0A:%E2%82%AC");
    }
}
