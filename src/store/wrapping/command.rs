//! A key from a command: bounded in time and size, quiet about what it said.

use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

/// How long the command may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often an ending command is looked at.
const TICK: Duration = Duration::from_millis(5);

/// What `command` writes to standard output, at most `most` bytes. It inherits the environment and standard error.
///
/// # Errors
/// The command by name and how it ended; never what it wrote.
pub(super) fn output(command: &[String], most: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    output_within(command, most, TIMEOUT)
}

pub(super) fn output_within(
    command: &[String],
    most: u64,
    timeout: Duration,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let (program, arguments) = command.split_first().ok_or("names no command")?;
    let deadline = Instant::now() + timeout;
    let mut started = Command::new(program);
    started.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let child = started.spawn().map_err(|error| format!("it cannot be started ({error})"))?;
    let mut running = Running(child);
    let Some(stdout) = running.0.stdout.take() else { return Err("it has no standard output".to_owned()) };

    // A pipe has no read deadline. The thread ends with the last process that holds the pipe.
    let (send, receive) = channel();
    let read = move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(most + 1).unwrap_or(0)));
        let read = stdout.take(most + 1).read_to_end(&mut bytes);
        // The other end may have gone at the deadline.
        let _ = send.send(read.map(|_| bytes));
    };
    thread::Builder::new().name("wrapping-key".to_owned()).spawn(read).map_err(|error| error.to_string())?;

    let late = || format!("it was not done within {} s", timeout.as_secs_f32());
    let bytes = match receive.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(format!("its output cannot be read ({error})")),
        Err(RecvTimeoutError::Timeout) => return Err(late()),
        Err(RecvTimeoutError::Disconnected) => return Err("its output cannot be read".to_owned()),
    };
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        return Err(format!("it wrote more than {most} bytes, which is no key"));
    }
    match running.end_by(deadline).ok_or_else(late)? {
        status if status.success() => Ok(bytes),
        status => Err(format!("it failed ({status})")),
    }
}

/// A child that does not outlive the wait for it.
struct Running(Child);

impl Running {
    fn end_by(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            if let Ok(Some(status)) = self.0.try_wait() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(TICK);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
