//! The attributes of the `lock` crate, which re-exports and documents them. [`macro@locked`] runs
//! an `async fn` under a distributed lock, [`macro@debounced`] runs the last call of a burst.
//!
//! The generated code only calls `lock::__private`. Rules that need no tokens are implemented
//! there, and tested there without a compiler.

// Over 500 lines because an attribute must be in the crate root, together with its documentation.

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
/// The attribute keeps the signature. It works on free functions and methods, generic or not,
/// including the native `async fn`s of a trait. It refuses a function that is not `async`, and
/// under `#[async_trait]` it sees such a function: for a trait that is used as `dyn Trait`, put the
/// attribute on an inherent method, and call that method from the trait method.
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
/// All arguments except `id` are optional. A duration is
///
/// - a string with units, checked at compile time: `"250ms"`, `"10s"`, `"1.5s"`, `"1m30s"`, `"2h"`,
///   `"1d"`;
/// - or a whole number of milliseconds, also checked at compile time: `1500`. A small number, such
///   as `wait = 5`, is refused, because it is most often meant to be seconds: 1 to 49 for `wait`
///   and `max_wait`, 1 to 999 for all other arguments;
/// - or any other expression of type `Duration`, such as a constant, `self.patience` or
///   `Duration::from_secs(10)`. It is evaluated at each call. It can borrow the function's
///   arguments, but not move them, because the body takes them afterwards. If the value is out of
///   range, the call fails with kind `Invalid`.
///
/// ## `id`
///
/// The id of the lock: calls with the same id exclude each other. A string literal is a template.
/// In braces, it contains arguments of the function, their fields, or constants; `{{` and `}}` are
/// literal braces. Values are escaped, so that different values never give the same id. Therefore
/// two values must be separated by a character that an escaped value cannot contain, such as `:`.
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
/// #[locked(id = "order:{tenant}{number}")] // `a1` and `2` would give the id of `a` and `12`
/// async fn ship(tenant: &str, number: u64) -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// Any other expression whose type implements `Display` is used without escaping.
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
/// These have the effect of the methods of `Lock` with the same names:
///
/// - `lease`: how long the lock stays held after its process has died, from 50 ms to 24 h;
/// - `wait`: how long to wait for the lock, where 0 means one attempt;
/// - `hold_at_most`: after how long to give up the lock even if the body still runs, at least the
///   lease;
/// - `hold_at_least`: for how long to keep the lock even if the body ends earlier, at most 24 h.
///
/// Without `lease` or `wait`, the setting of the `Locks` applies: 10 s each, unless set on its
/// builder.
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
/// An expression of type `Locks` or `&Locks`, which is borrowed, and evaluated at each call.
/// Without it, the attribute uses the `Locks` of the task's scope, or else that of the process.
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
/// The name of the guard (a `&LockGuard`) in the body.
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
/// A closure, or the path of a function, that turns the lock error into the output. Without it, the
/// output must be a `Result<_, E>` with `E: From<lock::Error>`; any other type does not compile.
/// `or_else` runs after the arguments are dropped, so it can use only those that are `Copy`, such
/// as shared references. In a function that returns an `impl Trait`, it must return the same type
/// as the body. If the two types differ, such as a status code and a page, convert both to one
/// type, such as a `Response`.
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
/// A flag. If somebody else holds the lock for all of `wait`, the call returns the empty value of
/// its output: `()`, `None`, `Ok(())` or `Ok(None)`. A function with any other output does not
/// compile. Other errors are returned as without `skip`.
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
/// A flag. A call from a body that already runs under the same lock of the same `Locks` would wait
/// for itself, so it fails immediately, with kind `Deadlock`. With `reentrant`, the body of such a
/// call runs under the caller's grant instead, and `guard` is another guard of that grant. Nothing
/// is acquired, and nothing is released when the body ends. The call's own `lease`, `wait`,
/// `hold_at_most` and `hold_at_least` have no effect. The body is stopped when the caller's lock is
/// lost. If the call's future outlives the caller's body, the body is also stopped when that lock
/// is released. A call from anywhere else acquires the lock.
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
/// What counts is which code polls the call. If the body awaits the call, directly or through a
/// `Box`, it is a call from the body. A call next to the body, in a `join!` around both, is not,
/// and neither is a call in a spawned task. So a body that spawns such a task and waits for it can
/// still wait for itself, for as long as `wait` lasts.
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
/// A function with several `#[locked]` attributes runs under all of their locks. Each attribute has
/// its own arguments, its own guard, and its own `or_else` and `skip`. The locks are acquired in
/// the order of their keys, not in that of the attributes, so that no two functions can each hold a
/// lock that the other waits for. The loss of any lock stops the body. If two attributes name the
/// same lock, the call fails with kind `Deadlock`, unless one of the two is `reentrant`.
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
/// The attributes recognize each other by name. After `use lock::locked as exclusive`, each
/// attribute is applied separately, and the locks are acquired in the order of the attributes, from
/// the last to the first.
///
/// # Details
///
/// - `locks`, the id and the durations are evaluated, in this order, before the body takes the
///   arguments, and before anything is sent to the store.
/// - The compiler warns about unused arguments as it does without the attribute. An argument that
///   the attribute uses counts as used. There is no warning for an unused argument if the body uses
///   its name for something else, as in `let name = ..`.
/// - The parts of an argument that its pattern does not bind, as in `(a, _): (A, B)`, are dropped
///   after the release. An argument `_` is dropped before the release, like all others.
/// - The future is `Send` if the body and its output are.
/// - Each call allocates its id, and its future is less than a tenth larger than that of the same
///   code written by hand.
#[proc_macro_attribute]
pub fn locked(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(Attribute::Locked, args.into(), &item.into()).into()
}

/// Turns a burst of calls, from any number of instances, into one run of an `async fn`.
///
/// The body runs when no call with the same id has been made for `wait`: only the last call runs,
/// with its own arguments. The output of a call is `Some` if it ran, and `None` if a newer call
/// took its place.
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
/// The return type changes. `Result<T, E>` with `E: From<lock::Error>` becomes `Result<Option<T>,
/// E>`, and so does an alias that is named `Result` and takes the `T`. Any other type `T`, such as
/// `fmt::Result`, becomes `Result<Option<T>, lock::Error>`. An attribute cannot see what an alias
/// stands for: an alias with another name, such as `AppResult<T>`, counts as any other type, so its
/// errors end up inside the `Option`. Write `Result<T, AppError>`, or name the alias `Result` in a
/// module. The attribute works on the same functions as [`macro@locked`].
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
/// All arguments are optional. Those that are not explained here work as in [`macro@locked`].
///
/// ## `id`
///
/// Calls with the same id form one burst. The default id consists of the path of the module and the
/// name of the function. It does not depend on the arguments, nor, for a method, on the type: set
/// an id to debounce those separately.
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
/// `wait` is the pause that ends a burst: the body runs when no call has been made for that long.
/// From 1 ms to 24 h, by default 1 s. `max_wait` bounds the time from the first call to the run
/// while calls keep coming. From `wait` to 24 h, by default without bound.
///
/// ```
/// # use lock::debounced;
/// #[debounced(wait = "5s", max_wait = "1m")]
/// async fn flush() {}
/// ```
///
/// ```compile_fail
/// # use lock::debounced;
/// #[debounced(wait = "5s", max_wait = "2s")] // shorter than `wait`
/// async fn flush() {}
/// ```
///
/// ## `leading`
///
/// A flag. The first call of a burst also runs, immediately.
///
/// ```
/// # use lock::debounced;
/// #[debounced(wait = "5s", leading)]
/// async fn refresh() {}
/// ```
///
/// ## `hold_at_most`
///
/// A run that takes longer is stopped at its next `.await`: its call fails with kind `Lost`, and
/// its id is free for the next run. Without `hold_at_most`, a body that hangs blocks its id for as
/// long as its caller waits. The value must be at least the lease of the `Locks`.
///
/// A durable run that takes longer counts as failed: its call is retried or set aside, as if the
/// run had returned an error. The bound is the same for all calls, so it cannot use the arguments.
///
/// ```
/// # use lock::debounced;
/// #[debounced(wait = "5s", hold_at_most = "1m")]
/// async fn export() {}
/// ```
///
/// ## `detached`
///
/// A flag. The call continues if its caller goes away. For example, the handler of an HTTP request
/// is dropped when its client hangs up. Without `detached`, the handler's call is dropped with it,
/// so nothing runs if no other call waits in the burst.
///
/// ```
/// # use lock::{Error, debounced};
/// #[debounced(id = "reindex:{document_id}", wait = "1s", detached)]
/// async fn reindex(document_id: u64, title: String) -> Result<(), Error> {
///     Ok(())
/// }
/// ```
///
/// The call is made when its future is first polled. From then on it is a task on the current Tokio
/// runtime, in the scope and the tracing span of its caller. So its arguments must be owned, and
/// the call and its output must be `Send`; for a method, take `self: Arc<Self>`. A caller that
/// waits gets the outcome, or the panic of the body, as without `detached`. `or_else` applies only
/// to callers that wait.
///
/// Because it is a separate task, the run is not under the locks of its caller. If a `#[locked]`
/// below `#[debounced]` names one of these locks, `reentrant` or not, the call fails immediately,
/// with kind `Deadlock`, and nothing runs.
///
/// ```compile_fail
/// # use lock::{Error, debounced};
/// #[debounced(id = "reindex:{document_id}", detached)]
/// async fn reindex(document_id: u64, title: &str) -> Result<(), Error> { // borrowed
///     Ok(())
/// }
/// ```
///
/// ## `durable`, `run`
///
/// A flag, which needs the feature `durable` of `lock`. The arguments are kept in the store, and
/// one of the processes that have registered the function runs the call, at least once, even if the
/// caller has died. See `lock::Durable` for the guarantees.
///
/// The function then only stores the call, and returns a `Result<Receipt, lock::Error>`. The
/// attribute also makes a type with the function's name, whose `register` is for processes that do
/// not call the function. `run = name` binds the `DurableRun` in the body; it has the generation of
/// the run.
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
/// `durable` works on free functions with owned arguments that serde can serialize and deserialize,
/// and an output of `()` or `Result<_, E>` where `E: Display`: a run that returns an error is
/// retried. Processes identify the function by its path. All processes that run at the same time,
/// whether of an old or a new version, must be able to read its arguments.
///
/// ## `locks`, `or_else`, `crate`
///
/// `or_else` returns a value of the new return type.
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
/// `#[debounced]` above [`macro@locked`] runs the body under the lock, which is acquired when a
/// burst is over, not by each call. Errors of the lock are returned like those of the debounce,
/// unless an `or_else` or `skip` of `#[locked]` makes a value, which then counts as the output of
/// the run.
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
/// The other way round does not compile: each call would hold the lock while it waits for more
/// calls, which would wait for the lock.
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
