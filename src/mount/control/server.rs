//! The mount's side of the control socket: accepts connections, lets in whom it may concern, and answers each in a thread of
//! its own. Looks after the socket, too: where commands would not find it any more, another one is made.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;

use super::protocol::{self, Failed, Progress, REQUEST_MAX, Reason, Request, Response};
use super::registry::Socket;

/// How often the socket is looked after.
const LOOK_AFTER: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// Connections that are held at once. Where there are more, the one that has kept silent longest makes room; where all
/// have asked something, the newest is turned away.
const CONNECTIONS: usize = 64;
/// How long a client may take for its request, or for taking a line of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A client hears of progress no more often than this.
const BREATH: Duration = Duration::from_millis(100);
/// After an error that may last: no descriptors left, say.
const PAUSE: Duration = Duration::from_millis(50);

/// Turns a request into its result. It runs in a thread of its own, several at a time.
type Answer = dyn Fn(Request, &Reporter<'_>) -> Response + Send + Sync;

/// Tells a client how far its request has come.
#[derive(Debug)]
pub struct Reporter<'a> {
    stream: &'a UnixStream,
    last: Cell<Option<Instant>>,
    is_heard: Cell<bool>,
}

impl<'a> Reporter<'a> {
    const fn new(stream: &'a UnixStream) -> Self {
        Self {
            stream,
            last: Cell::new(None),
            is_heard: Cell::new(true),
        }
    }

    /// Reports progress, unless the client has heard of it a moment ago. Says whether anybody still listens: where not, the
    /// mount ends or the command was interrupted, and work that can be taken up later should stop.
    pub fn report(&self, done: u64, total: u64, what: &str) -> bool {
        let now = Instant::now();
        let is_due = self.last.get().is_none_or(|last| now - last >= BREATH);
        if is_due {
            self.last.set(Some(now));
            let what = what.to_owned();
            return self.tell(&Response::Progress(Progress { done, total, what }));
        }
        self.is_heard.get()
    }

    /// Sends a line that is not the last. Says whether anybody still listens.
    pub fn tell(&self, line: &Response) -> bool {
        if self.is_heard.get() {
            self.is_heard
                .set(protocol::send(&mut { self.stream }, line).is_ok());
        }
        self.is_heard.get()
    }
}

#[derive(Default)]
struct Connections {
    /// By the order in which they came.
    streams: Mutex<BTreeMap<u64, Connection>>,
}

struct Connection {
    stream: UnixStream,
    /// Its request has come.
    has_asked: bool,
}

impl Connections {
    /// Keeps a connection; where there are too many, it takes the place of one that has asked nothing so far.
    fn add(&self, number: u64, stream: UnixStream) -> Result<(), UnixStream> {
        let mut streams = self.streams.lock();
        if streams.len() >= CONNECTIONS {
            let silent = streams.iter().find(|(_, other)| !other.has_asked);
            let Some(silent) = silent.map(|(number, _)| *number) else {
                return Err(stream);
            };
            if let Some(silent) = streams.remove(&silent) {
                // Gone already, if this fails.
                let _ = silent.stream.shutdown(std::net::Shutdown::Both);
            }
        }
        let connection = Connection {
            stream,
            has_asked: false,
        };
        streams.insert(number, connection);
        Ok(())
    }

    fn has_asked(&self, number: u64) {
        if let Some(connection) = self.streams.lock().get_mut(&number) {
            connection.has_asked = true;
        }
    }
}

/// Answers until it is dropped, which ends the answers under way.
pub struct Server {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    /// Answers what comes in on a socket, what has been waiting there included.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start<A>(socket: Socket, answer: A) -> io::Result<Self>
    where
        A: Fn(Request, &Reporter<'_>) -> Response + Send + Sync + 'static,
    {
        let answer: Arc<Answer> = Arc::new(answer);
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("cmkfs-control".to_owned())
            .spawn(move || serve(socket, &answer, &told))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An eventfd takes this unless its counter is full.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on the log.
            let _ = thread.join();
        }
    }
}

fn serve(mut socket: Socket, answer: &Arc<Answer>, stop: &OwnedFd) {
    let connections = Arc::new(Connections::default());
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for number in 0.. {
        match wait(&socket, stop) {
            Ok(Next::Stop) => break,
            Ok(Next::Connection) => match accept(&socket) {
                Ok(Some(stream)) => {
                    threads.retain(|thread| !thread.is_finished());
                    match answer_one(&connections, number, stream, answer) {
                        Ok(thread) => threads.push(thread),
                        Err(error) => log::warn!("a connection was turned away: {error}"),
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    log::warn!("the control socket: {error}");
                    std::thread::sleep(PAUSE);
                }
            },
            Ok(Next::Nothing) => {}
            Err(error) => {
                log::warn!("the control socket: {error}");
                std::thread::sleep(PAUSE);
            }
        }
        look_after(&mut socket);
    }
    // First, so that a client whose answer is cut short sees that this mount has ended.
    drop(socket);
    for connection in connections.streams.lock().values() {
        // Gone already, if this fails.
        let _ = connection.stream.shutdown(std::net::Shutdown::Both);
    }
    for thread in threads {
        // A thread that panicked has said so on the log.
        let _ = thread.join();
    }
}

enum Next {
    Stop,
    Connection,
    Nothing,
}

fn wait(socket: &Socket, stop: &OwnedFd) -> Result<Next, Errno> {
    let mut events = [
        PollFd::new(stop, PollFlags::IN),
        PollFd::new(socket.listener(), PollFlags::IN),
    ];
    match rustix::event::poll(&mut events, Some(&LOOK_AFTER)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    let [stopped, connected] = events.map(|event| !event.revents().is_empty());
    Ok(match (stopped, connected) {
        (true, _) => Next::Stop,
        (false, true) => Next::Connection,
        (false, false) => Next::Nothing,
    })
}

/// The next connection, if whoever made it may.
fn accept(socket: &Socket) -> io::Result<Option<UnixStream>> {
    let stream = match socket.listener().accept() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        accepted => accepted?.0,
    };
    let user = socket_peercred(&stream)?.uid.as_raw();
    let ours = rustix::process::geteuid().as_raw();
    if user == 0 || user == ours || user == socket.owner() {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Some(stream))
    } else {
        log::warn!("user {user} was turned away from the control socket");
        Ok(None)
    }
}

fn answer_one(
    connections: &Arc<Connections>,
    number: u64,
    stream: UnixStream,
    answer: &Arc<Answer>,
) -> io::Result<JoinHandle<()>> {
    if let Err(stream) = connections.add(number, stream.try_clone()?) {
        let line = failed("too many requests at once".to_owned());
        return protocol::send(&mut &stream, &line).and(Err(io::Error::other("too many at once")));
    }
    let (mine, answer) = (Arc::clone(connections), Arc::clone(answer));
    let spawned = std::thread::Builder::new()
        .name("cmkfs-request".to_owned())
        .spawn(move || {
            let has_asked = || mine.has_asked(number);
            if let Err(error) = converse(&stream, &*answer, has_asked) {
                log::debug!("a request could not be answered: {error}");
            }
            mine.streams.lock().remove(&number);
        });
    if spawned.is_err() {
        connections.streams.lock().remove(&number);
    }
    spawned
}

fn converse(stream: &UnixStream, answer: &Answer, has_asked: impl FnOnce()) -> io::Result<()> {
    let response = match protocol::receive(&mut BufReader::new(stream), REQUEST_MAX) {
        Ok(Some(request)) => {
            has_asked();
            answer(request, &Reporter::new(stream))
        }
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            failed(format!("this is no request: {error}"))
        }
        Err(error) => return Err(error),
    };
    protocol::send(&mut { stream }, &response)
}

/// The result of a request that could not be done.
#[must_use]
pub const fn failed(message: String) -> Response {
    let reason = Reason::Other;
    Response::Failed(Failed { reason, message })
}

/// Makes another socket where commands do not find this one any more.
fn look_after(socket: &mut Socket) {
    if socket.is_found() {
        return;
    }
    match Socket::bind(socket.keys()) {
        Ok(another) => {
            log::info!("the control socket was gone, and was made anew");
            *socket = another;
        }
        // Once a second while there is no key directory: its keys cannot be read then either.
        Err(error) => log::debug!("the control socket is gone and cannot be made anew: {error}"),
    }
}
