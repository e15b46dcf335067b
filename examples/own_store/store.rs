//! A store on files, for the processes of one machine. Each lock is a file, and so is the last fence.
//! An operation locks the directory with `flock`, and renames a new file over the old one. So it is
//! atomic, even if the process is killed.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lock::{
    Token,
    store::{
        AcquireRequest, Acquisition, Answers, IfHeld, Release, ReleaseRequest, RenewRequest,
        Renewal, Store, StoreError,
    },
};
use rustix::fs::{FlockOperation, flock};

pub(crate) struct FileStore(PathBuf);

impl FileStore {
    /// Opens the store in this directory, which is created if it does not exist.
    pub(crate) fn open(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let store = Self(directory.into());
        fs::create_dir_all(&store.0)?;
        let _alone = store.enter()?;
        for entry in fs::read_dir(&store.0)? {
            // An expired lock that nobody asks for would stay for ever.
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "lock") && read(&path, now())?.is_none()
            {
                fs::remove_file(path)?;
            }
        }
        Ok(store)
    }

    /// Waits for its turn, which ends when the file is closed. Each operation before it takes less
    /// than a millisecond, unless its process is stopped in the middle.
    fn enter(&self) -> io::Result<File> {
        let (gate, began) = (File::create(self.0.join("gate"))?, Instant::now());
        loop {
            match flock(&gate, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(gate),
                Err(error) if began.elapsed().as_secs() >= 1 => return Err(error.into()),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Applies an operation to each request of a batch, when the future is first polled. This
    /// blocks the library's thread, which is there for it: on another thread, a later call might
    /// overtake it.
    fn each<'a, Q: Sync, A: Send>(
        &'a self,
        batch: &'a [Q],
        what: impl Fn(&Self, &Q) -> io::Result<A> + Send + 'a,
    ) -> Answers<'a, A> {
        Box::pin(async move {
            let alone = self.enter().map_err(StoreError::unavailable);
            let one = |request| {
                alone.as_ref().map_err(StoreError::clone)?;
                what(self, request).map_err(StoreError::unavailable)
            };
            batch.iter().map(one).collect()
        })
    }

    /// Encodes every byte except lowercase letters and digits, so that no two keys share a file.
    fn path(&self, key: &str) -> PathBuf {
        let encode = |byte: u8| match byte {
            b'0'..=b'9' | b'a'..=b'z' => char::from(byte).to_string(),
            other => format!("%{other:02x}"),
        };
        self.0.join(key.bytes().map(encode).collect::<String>() + ".lock")
    }

    fn write(&self, path: &Path, time: Duration, token: &Token) -> io::Result<()> {
        // Not synced to the disk: a power failure that undoes this has also ended all holders.
        let new = self.0.join("new");
        fs::write(&new, format!("{} {}", time.as_micros(), token.as_str()))?;
        fs::rename(new, path)
    }
}

impl Store for FileStore {
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        self.each(batch, |store, AcquireRequest { key, token, lease, if_held, .. }| {
            let path = store.path(key);
            let held = read(&path, now())?;
            let passes = match (&held, if_held) {
                (Some((_, holder)), IfHeld::Adopt(from)) => holder == token || holder == from,
                (Some((_, holder)), _) => holder == token,
                (None, how) => !matches!(how, IfHeld::Adopt(_)),
            };
            if !passes {
                let left = held.map(|(expiry, _)| expiry.saturating_sub(now()));
                return Ok(Acquisition::held(left.or(Some(Duration::ZERO))));
            }
            // Larger than the last fence; by the clock, larger than all before if its file is lost.
            let fences = store.0.join("fence");
            let last = read(&fences, Duration::ZERO)?.map_or(Duration::ZERO, |(last, _)| last);
            let fence = now().max(last + Duration::from_micros(1));
            store.write(&fences, fence, token)?;
            store.write(&path, now() + *lease, token)?;
            Ok(Acquisition::granted(fence.as_micros() as u64))
        })
    }

    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        self.each(batch, |store, RenewRequest { key, token, lease, .. }| {
            let path = store.path(key);
            let held = read(&path, now())?.filter(|(_, holder)| holder == token);
            let Some((expiry, _)) = held else { return Ok(Renewal::not_ours()) };
            store.write(&path, expiry.max(now() + *lease), token)?;
            Ok(Renewal::renewed())
        })
    }

    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        self.each(batch, |store, ReleaseRequest { key, token, keep, .. }| {
            let path = store.path(key);
            match read(&path, now())?.filter(|(_, holder)| holder == token) {
                Some(_) if keep.is_zero() => fs::remove_file(path)?,
                Some(_) => store.write(&path, now() + *keep, token)?,
                None => return Ok(Release::not_ours()),
            }
            Ok(Release::freed())
        })
    }
}

/// The expiry and the holder of a lock, or `None` if it has expired.
fn read(path: &Path, now: Duration) -> io::Result<Option<(Duration, Token)>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let (time, token) = text.split_once(' ').ok_or(ErrorKind::InvalidData)?;
    let time = Duration::from_micros(time.parse().map_err(|_| ErrorKind::InvalidData)?);
    Ok((time > now).then(|| (time, token.to_owned().into())))
}

/// This machine's clock: the time since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
