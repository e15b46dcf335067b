//! The attributes of the `lock` crate, which exports and explains them: [`macro@locked`] runs an
//! `async fn` under a distributed lock, [`macro@debounced`] runs the last call of a burst.
//!
//! The code that they generate only calls `lock::__private`. Every rule that needs no tokens is
//! there, and so is every test that needs no compiler.

// Over 500 lines: an attribute must be in the root of its crate, and its documentation stands on it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod args;
mod attribute;
mod check;
mod duration;
mod expand;
mod function;
mod names;
mod renamed;
mod span;
mod stack;
mod template;
mod values;
mod ways;

use proc_macro::TokenStream;

use attribute::Attribute;

/// Runs an `async fn` under a distributed lock.
///
/// The lock is acquired before the body starts, its lease is renewed while the body runs, and it is
/// released when the body has ended and all arguments are dropped.
///
/// ```
/// use lock::{Error, locked};
///
/// #[locked(id = "invoice:{invoice_id}")]
/// async fn charge(invoice_id: u64) -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// The attribute keeps the signature. It goes on free functions and methods, generic or not, also
/// on a native `async fn` of a trait. It does not go on a function that is not `async`, which is
/// what it sees under `#[async_trait]`: for a trait that is used as `dyn Trait`, put it on an
/// inherent method, and call that from the method of the trait.
///
/// ```
/// # use std::{future::Future, pin::Pin};
/// # use lock::{Error, locked};
/// # trait Billing { // what `#[async_trait]` makes of an `async fn`
/// #     fn charge<'a>(&'a self, id: u64) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;
/// # }
/// # struct Service;
/// impl Service {
///     #[locked(id = "invoice:{id}")]
///     async fn charge_alone(&self, id: u64) -> Result<(), Error> {
///         Ok(())
///     }
/// }
///
/// # /*
/// #[async_trait]
/// impl Billing for Service {
///     async fn charge(&self, id: u64) -> Result<(), Error> {
///         self.charge_alone(id).await
///     }
/// }
/// # */
/// # impl Billing for Service {
/// #     fn charge<'a>(&'a self, id: u64) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
/// #         Box::pin(self.charge_alone(id))
/// #     }
/// # }
/// ```
///
/// # Arguments
///
/// All arguments but `id` are optional. A duration is
///
/// - a string with units, which the compiler checks: `"250ms"`, `"10s"`, `"1.5s"`, `"1m30s"`,
///   `"2h"`, `"1d"`;
/// - or an integer of milliseconds, which it checks too: `1500`. A small one, such as `wait = 5`, is
///   refused, because it was most often meant to be seconds: under 50 for `wait` and `max_wait`,
///   under 1000 for all others;
/// - or any other expression of type `Duration`, such as a constant, `self.patience` or
///   `Duration::from_secs(10)`. It is evaluated at each call, where the arguments of the function
///   can be used; it borrows them, since the body takes them after it. A value that is out of range
///   is an error of kind `Invalid`.
///
/// ## `id`
///
/// The id of the lock: callers with the same id exclude each other. A string literal is a template.
/// Between braces it takes arguments of the function, their fields, and constants; `{{` and `}}`
/// are braces. Values are escaped, so that different ones never give one id; for that, two values
/// need a character between them which an escaped value cannot contain, such as `:`.
///
/// ```
/// # use lock::{Error, locked};
/// # struct Order { id: u64 }
/// # struct Service { tenant: String }
/// # impl Service {
/// #[locked(id = "order:{self.tenant}:{order.id}")]
/// async fn ship(&self, order: Order) -> Result<(), Error> {
///     Ok(())
/// }
/// # }
/// ```
///
/// ```compile_fail
/// # use lock::{Error, locked};
/// #[locked(id = "order:{tenant}{number}")] // `a1` and `2` would be `a` and `12`
/// async fn ship(tenant: &str, number: u64) -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// Any other expression that implements `Display` is taken as it is, and not escaped.
///
/// ```
/// # use lock::{Error, locked};
/// # struct Date;
/// # impl Date { fn ordinal(&self) -> u32 { 1 } }
/// #[locked(id = format!("report:{}", day.ordinal()))]
/// async fn report(day: Date) -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// ## `lease`, `wait`, `hold_at_most`, `hold_at_least`
///
/// As the methods of `Lock`: how long the lock outlives a process that died, from 50 ms to 24 h;
/// how long to wait for it, where 0 means one attempt; when to give it up although the body still
/// runs, at least one lease; and until when to keep it although the body has ended. Without them,
/// the `Locks` has its own lease and wait, 10 s each unless its builder was told otherwise.
///
/// ```
/// # use lock::{Error, locked};
/// #[locked(id = "nightly", lease = "30s", wait = 0, hold_at_most = "1h", hold_at_least = "1m")]
/// async fn nightly() -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// ```
/// # use std::time::Duration;
/// # use lock::{Error, locked};
/// # struct Service { patience: Duration }
/// const LIMIT: Duration = Duration::from_secs(3600);
///
/// # impl Service {
/// #[locked(id = "nightly", wait = self.patience, hold_at_most = LIMIT)]
/// async fn nightly(&self) -> Result<(), Error> {
///     Ok(())
/// }
/// # }
/// ```
///
/// ```compile_fail
/// # use lock::{Error, locked};
/// #[locked(id = "nightly", lease = 10)] // ten seconds are `"10s"`
/// async fn nightly() -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// ## `locks`
///
/// An expression of type `Locks` or `&Locks`. It is borrowed, and evaluated at each call. Without
/// it, the client is that of the task's scope or of the process.
///
/// ```
/// # use lock::{Error, Locks, locked};
/// # struct Service { locks: Locks, tenant: String }
/// # impl Service {
/// #[locked(id = "tenant:{self.tenant}", locks = self.locks)]
/// async fn settle(&self) -> Result<(), Error> {
///     Ok(())
/// }
/// # }
/// ```
///
/// ## `guard`
///
/// A name for the guard, a `&LockGuard`, in the body.
///
/// ```
/// # use lock::{Error, locked};
/// # struct Ledger;
/// # impl Ledger { async fn write(&self, token: u64) -> Result<(), Error> { Ok(()) } }
/// #[locked(id = "ledger", guard = guard)]
/// async fn write(ledger: &Ledger) -> Result<(), Error> {
///     ledger.write(guard.fencing_token()).await
/// }
/// ```
///
/// ## `or_else`
///
/// A closure, or the path of a function, from the lock error to the output. Without it, the output
/// is a `Result<_, E>` with `E: From<lock::Error>`; any other type does not compile. It runs when
/// the arguments are gone, so it can use only those that are `Copy`, such as shared references. In
/// a function that returns an `impl Trait`, it makes the type that the body makes: where those
/// differ, as a status code and a page do, convert both to one, such as a `Response`.
///
/// ```
/// # use lock::locked;
/// #[locked(id = "count", or_else = |_error| 0)]
/// async fn count() -> u32 {
///     1
/// }
/// ```
///
/// ```compile_fail
/// # use lock::locked;
/// #[locked(id = "count")] // where would an error go?
/// async fn count() -> u32 {
///     1
/// }
/// ```
///
/// ## `skip`
///
/// A flag. When somebody else holds the lock for all of `wait`, the call returns the empty value of
/// its output: `()`, `None`, `Ok(())` or `Ok(None)`. Any other type does not compile. Other errors
/// leave as without it.
///
/// ```
/// # use lock::{Error, locked};
/// #[locked(id = "nightly", wait = 0, skip)]
/// async fn nightly() -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// ```compile_fail
/// # use lock::{Error, locked};
/// #[locked(id = "nightly", wait = 0, skip)] // there is no empty `u32`
/// async fn nightly() -> Result<u32, Error> {
///     Ok(1)
/// }
/// ```
///
/// ## `on_lost`
///
/// What happens when the lock is lost while the body runs. `"stop"`, the default, drops the body at
/// its next `.await`, and the call fails with kind `Lost`. `"continue"` lets it finish.
///
/// ```
/// # use lock::{Error, locked};
/// #[locked(id = "export", on_lost = "continue")]
/// async fn export() -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// ## `reentrant`
///
/// A flag. A call from a body that runs under the same lock of the same `Locks` already would wait
/// for itself, so it fails at once, with kind `Deadlock`. With `reentrant`, its body runs under the
/// caller's guard instead: `guard` is another guard of the one grant, nothing is acquired and
/// nothing is released at its end, its own `lease`, `wait` and holds do not count, and it is
/// stopped when the caller's lock is lost, or released, should its future outlive the caller's
/// body. A call from anywhere else acquires the lock.
///
/// ```
/// # async fn example() {
/// use lock::{Error, ErrorKind, Locks, locked};
///
/// #[locked(id = "account:{account}")]
/// async fn transfer(account: u64) -> Result<u64, Error> {
///     assert_eq!(close(account).await.unwrap_err().kind(), ErrorKind::Deadlock);
///     balance(account).await
/// }
///
/// #[locked(id = "account:{account}", reentrant)]
/// async fn balance(account: u64) -> Result<u64, Error> {
///     Ok(100)
/// }
///
/// #[locked(id = "account:{account}")]
/// async fn close(account: u64) -> Result<(), Error> {
///     Ok(())
/// }
///
/// assert_eq!(Locks::in_memory().scope(transfer(7)).await.unwrap(), 100);
/// # }
/// ```
///
/// The caller is the code that polls: a future that the body awaits is a call from the body, also
/// through a `Box`; one beside it, in a `join!` around both, is not, nor is a spawned task. So a body
/// that spawns a task and waits for it can still wait for itself, for as long as `wait` lasts.
///
/// ## `crate`
///
/// The path of the `lock` crate, if it has another name (as with
/// `dlock = { package = "lock", .. }` in Cargo.toml: `crate = dlock`) or is reached through another
/// crate.
///
/// ```
/// # mod service { pub mod reexports { pub use lock; } }
/// # use lock::{Error, locked};
/// #[locked(id = "nightly", crate = service::reexports::lock)]
/// async fn nightly() -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// # Several locks
///
/// A function with several `#[locked]` runs under all of those locks. Each has its own arguments,
/// its own guard, and its own way out. They are taken in the order of their keys, whatever the order
/// of the attributes, so that no two functions can each hold what the other waits for. The loss of
/// any of them stops the body. One lock twice is a `Deadlock`, unless one of the two is `reentrant`.
///
/// ```
/// # use lock::{Error, locked};
/// #[locked(id = "account:{from}", guard = debit)]
/// #[locked(id = "account:{to}", guard = credit)]
/// async fn transfer(from: u64, to: u64) -> Result<(u64, u64), Error> {
///     Ok((debit.fencing_token(), credit.fencing_token()))
/// }
/// ```
///
/// The attributes know each other by name: under `use lock::locked as exclusive` each would stand
/// alone, and the order would be that of the attributes, from the last to the first.
///
/// # What to know
///
/// - The client, the id and durations are evaluated, in this order, before the body takes the
///   arguments, and before anything is sent.
/// - The compiler warns of unused arguments as it does without the attribute; what the attribute
///   uses is used. Not of one that the body names in another meaning, as in `let name = ..`.
/// - The parts of an argument that its pattern does not bind, as in `(a, _): (A, B)`, are dropped
///   after the release. An argument `_` is dropped before it, like all others.
/// - The future is `Send` if the body and its output are.
/// - The attribute allocates the id, and its future is less than a tenth larger than by hand.
#[proc_macro_attribute]
pub fn locked(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(Attribute::Locked, args.into(), &item.into()).into()
}

/// Turns a burst of calls, from any number of instances, into one run of an `async fn`.
///
/// The body runs once the calls with one id have paused for `wait`, in the last of them and with its
/// arguments. The output tells a caller which one it was: `Some` if its call ran, `None` if a newer
/// call took its place.
///
/// ```
/// # async fn example() {
/// use lock::debounced;
///
/// #[debounced(wait = 1000)]
/// async fn reindex() -> usize {
///     1
/// }
///
/// let indexed: Result<Option<usize>, lock::Error> = reindex().await;
/// # }
/// ```
///
/// The return type changes: `Result<T, E>` with `E: From<lock::Error>`, also as an alias that is
/// named `Result` and has the `T`, becomes `Result<Option<T>, E>`; any other `T`, such as
/// `fmt::Result`, becomes `Result<Option<T>, lock::Error>`. An attribute cannot see what an alias
/// stands for: one of another name, such as `AppResult<T>`, is any other `T`, so that its errors are
/// inside of the `Option`. Write `Result<T, AppError>`, or name the alias `Result` in a module.
/// The attribute goes where [`macro@locked`] goes.
///
/// ```
/// # async fn example() {
/// # struct AppError;
/// # impl From<lock::Error> for AppError { fn from(_: lock::Error) -> Self { Self } }
/// use lock::debounced;
///
/// type AppResult<T> = Result<T, AppError>;
///
/// #[debounced]
/// async fn written_out() -> Result<u32, AppError> {
///     Ok(1)
/// }
///
/// #[debounced]
/// async fn another_alias() -> AppResult<u32> {
///     Ok(1)
/// }
///
/// let indexed: Result<Option<u32>, AppError> = written_out().await;
/// let indexed: Result<Option<AppResult<u32>>, lock::Error> = another_alias().await;
/// # }
/// ```
///
/// # Arguments
///
/// All are optional. What is not explained here is as in [`macro@locked`].
///
/// ## `id`
///
/// Calls with one id are one burst. The default is the path of the module and the name of the
/// function, whatever the arguments and, for a method, whatever the type: name an id if those are
/// to be debounced apart.
///
/// ```
/// # use lock::{Error, debounced};
/// #[debounced(id = "reindex:{document_id}")]
/// async fn reindex(document_id: u64) -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// ## `wait`, `max_wait`
///
/// How long the calls have to pause: 1 s if it is not given, from 1 ms to 24 h. And how long after
/// the first call the body runs at the latest, although calls go on coming: at least `wait`, and
/// without bound if it is not given.
///
/// ```
/// # use lock::debounced;
/// #[debounced(wait = "5s", max_wait = "1m")]
/// async fn flush() {}
/// ```
///
/// ```compile_fail
/// # use lock::debounced;
/// #[debounced(wait = "5s", max_wait = "2s")] // the calls have to pause for five
/// async fn flush() {}
/// ```
///
/// ## `leading`
///
/// A flag. The first call of a burst runs at once, too.
///
/// ```
/// # use lock::debounced;
/// #[debounced(wait = "5s", leading)]
/// async fn refresh() {}
/// ```
///
/// ## `hold_at_most`
///
/// A run that takes longer is stopped at its next `.await`: its call fails with kind `Lost`, and its
/// id is free for the next run. Without it, a body that hangs blocks its id for as long as its
/// caller waits. At least the lease of the `Locks`.
///
/// A durable run that takes longer has failed: it is tried again, or set aside, as one that returned
/// an error. The bound is the same for all calls, so it cannot use the arguments.
///
/// ```
/// # use lock::debounced;
/// #[debounced(wait = "5s", hold_at_most = "1m")]
/// async fn export() {}
/// ```
///
/// ## `detached`
///
/// A flag. The call goes on if its caller goes away: the handler of an HTTP request is dropped when
/// its client hangs up, and without `detached` its call with it, so that nothing runs if it was the
/// last one.
///
/// ```
/// # use lock::{Error, debounced};
/// #[debounced(id = "reindex:{document_id}", wait = "1s", detached)]
/// async fn reindex(document_id: u64, title: String) -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// The call is made when the function is first polled. From there on it is a task of the current
/// Tokio runtime, in the scope and the tracing span of its caller. So its arguments are owned, and
/// it and its output are `Send`; for a method, take `self: Arc<Self>`. A caller that waits gets the
/// outcome, and a panic of the body, as without it. `or_else` is for callers that wait.
///
/// As a task of its own, the run is not under the locks of its caller. If a `#[locked]` below it asks
/// for one of these, `reentrant` or not, the call fails at once, with kind `Deadlock`, and is not made.
///
/// ```compile_fail
/// # use lock::{Error, debounced};
/// #[debounced(id = "reindex:{document_id}", detached)]
/// async fn reindex(document_id: u64, title: &str) -> Result<(), Error> { // whose `str`?
///     Ok(())
/// }
/// ```
///
/// ## `durable`, `run`
///
/// A flag, with the feature `durable` of `lock`: the arguments are kept in the store, and any process
/// that has registered the function runs it, at least once, even if the caller has died. See
/// `lock::Durable` for what that promises.
///
/// The function then only keeps the call, and returns a `Result<Receipt, lock::Error>`. A type of
/// its name has `register`, for processes that do not call it. `run = name` binds the
/// `DurableRun` in the body, with the generation of the run.
///
#[cfg_attr(feature = "durable", doc = "```")]
#[cfg_attr(not(feature = "durable"), doc = "```ignore")]
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::{Locks, debounced};
///
/// #[debounced(id = "reindex:{document_id}", wait = "1s", durable, run = run)]
/// async fn reindex(document_id: u64, title: String) -> Result<(), std::io::Error> {
///     println!("{title}, generation {}", run.generation());
///     Ok(())
/// }
///
/// let locks = Locks::in_memory();
/// reindex::register(&locks)?; // this process runs it
/// let receipt = locks.scope(reindex(7, "a title".to_owned())).await?;
/// println!("runs in {:?}", receipt.due_in());
/// # Ok(())
/// # }
/// ```
///
/// It goes on free functions with owned arguments that serde can write and read, and an output of
/// `()` or `Result<_, E>` where `E: Display`: a run that returns an error is tried again. Processes
/// know the function by its path; its arguments are read by all that run at the same time.
///
/// ## `locks`, `or_else`, `crate`
///
/// `or_else` makes a value of the new return type.
///
/// ```
/// # use lock::{Locks, debounced};
/// # struct Config { locks: Locks, path: String }
/// # impl Config {
/// #[debounced(locks = self.locks, or_else = |_error| Ok(None))]
/// async fn read(&self) -> std::io::Result<Vec<u8>> {
///     std::fs::read(&self.path)
/// }
/// # }
/// ```
///
/// # Under a lock
///
/// `#[debounced]` above [`macro@locked`] runs the body under the lock: it is acquired when a burst
/// is over, not by each call. Its errors leave as those of the debounce, unless its own `or_else`
/// or `skip` makes a value, which counts as that of the run.
///
/// ```
/// # use lock::{Error, debounced, locked};
/// #[debounced(id = "save:{document_id}")]
/// #[locked(id = "document:{document_id}", guard = guard)]
/// async fn save(document_id: u64) -> Result<u64, Error> {
///     Ok(guard.fencing_token())
/// }
/// ```
///
/// The other way round, each call would hold the lock while it waits for more calls, which would
/// wait for the lock:
///
/// ```compile_fail
/// # use lock::{Error, debounced, locked};
/// #[locked(id = "document:{document_id}")]
/// #[debounced(id = "save:{document_id}")]
/// async fn save(document_id: u64) -> Result<(), Error> {
///     Ok(())
/// }
/// ```
#[proc_macro_attribute]
pub fn debounced(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(Attribute::Debounced, args.into(), &item.into()).into()
}
