//! The attributes of the `lock` crate, which exports and explains them: [`macro@locked`] runs an
//! `async fn` under a distributed lock, [`macro@debounced`] runs the last call of a burst.
//!
//! The code that they generate only calls `lock::__private`. Every rule that needs no tokens is
//! there, and so is every test that needs no compiler.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod args;
mod attribute;
mod duration;
mod expand;
mod function;
mod stack;
mod template;

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
/// what it sees under `#[async_trait]`.
///
/// # Arguments
///
/// A duration is an integer of milliseconds, or a string: `500`, `"250ms"`, `"10s"`, `"1m30s"`,
/// `"2h"`. All arguments but `id` are optional.
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
/// As the methods of `Lock`: how long the lock outlives a process that died, at least 50 ms; how
/// long to wait for it, where 0 means one attempt; when to give it up although the body still runs;
/// and until when to keep it although the body has ended.
///
/// ```
/// # use lock::{Error, locked};
/// #[locked(id = "nightly", lease = "30s", wait = 0, hold_at_most = "1h", hold_at_least = "1m")]
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
/// the arguments are gone, so it can use only those that are `Copy`, such as shared references.
///
/// ```
/// # use lock::locked;
/// #[locked(id = "count", or_else = |_error| 0)]
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
/// ## `crate`
///
/// The path of the `lock` crate, if it has another name or is reached through another crate.
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
/// # What to know
///
/// - The id is evaluated before the body takes the arguments, and before anything is sent.
/// - The parts of an argument that its pattern does not bind, as in `(a, _): (A, B)`, are dropped
///   after the release. An argument `_` is dropped before it, like all others.
/// - The future is `Send` if the body and its output are.
/// - With several such attributes on one function, the last one is acquired first.
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
/// named `Result`, becomes `Result<Option<T>, E>`; any other `T` becomes
/// `Result<Option<T>, lock::Error>`. The attribute goes where [`macro@locked`] goes.
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
/// ## `wait`
///
/// How long the calls have to pause.
///
/// ```
/// # use lock::debounced;
/// #[debounced(wait = "5s")]
/// async fn flush() {}
/// ```
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
#[proc_macro_attribute]
pub fn debounced(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(Attribute::Debounced, args.into(), &item.into()).into()
}
