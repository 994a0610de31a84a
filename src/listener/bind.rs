//! The sockets of one listener: one per worker, all on the same address, so that the kernel spreads connections and
//! workers share no accept queue.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Length asked of each accept queue; the kernel caps it at `net.core.somaxconn` (4096 since Linux 5.4).
const BACKLOG: i32 = 4096;

/// Binds `workers` nonblocking sockets to `address` and says which address it became: with port 0 the first socket lets
/// the system choose and the others follow. `[::]` takes IPv4 as well, whatever the system's default; any other IPv6
/// address takes IPv6 only.
///
/// The address is not shared with other processes, not even with a second gateway, whose sockets would otherwise
/// silently get a part of the connections.
///
/// # Errors
/// Those of the system, such as `AddrInUse` or `PermissionDenied`; `InvalidInput` for no workers.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    if workers == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a listener needs at least one worker"));
    }
    // Bound without SO_REUSEPORT, the first socket fails if anybody else listens here; with the option set afterwards it
    // lets the others of this process in. A second process fails on its own first socket.
    let first = open(address)?;
    first.bind(&address.into())?;
    if workers > 1 {
        first.set_reuse_port(true)?;
    }
    first.listen(BACKLOG)?;
    let bound = first.local_addr()?.as_socket().ok_or_else(|| {
        io::Error::new(io::ErrorKind::AddrNotAvailable, "the bound socket has no IP address")
    })?;

    let mut listeners = Vec::with_capacity(workers);
    listeners.push(first.into());
    for _ in 1..workers {
        let socket = open(bound)?;
        socket.set_reuse_port(true)?;
        socket.bind(&bound.into())?;
        socket.listen(BACKLOG)?;
        listeners.push(socket.into());
    }
    Ok((bound, listeners))
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let SocketAddr::V6(address) = address {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Lets a restart bind while connections of the process before it are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

    use super::*;

    const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn all_workers_share_the_port_that_the_first_was_given() {
        let (bound, listeners) = bind(ANY_PORT, 4).unwrap();
        assert_ne!(bound.port(), 0);
        assert_eq!(listeners.len(), 4);
        for listener in &listeners {
            assert_eq!(listener.local_addr().unwrap(), bound);
        }
    }

    #[test]
    fn every_worker_gets_connections() {
        let (bound, listeners) = bind(ANY_PORT, 2).unwrap();
        // 64 connections that all land on one of two sockets: chance 2^-63.
        let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(bound).unwrap()).collect();
        let accepted = listeners.iter().map(|listener| {
            let mut count = 0;
            while listener.accept().is_ok() {
                count += 1;
            }
            count
        });
        let accepted: Vec<usize> = accepted.collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        assert!(accepted.iter().all(|&count| count > 0), "{accepted:?}");
    }

    #[test]
    fn a_second_listener_on_a_taken_address_is_refused() {
        for (there, second) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            let (bound, _listeners) = bind(ANY_PORT, there).unwrap();
            let error = bind(bound, second).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{there} then {second}");
        }
    }

    #[test]
    fn a_freed_address_can_be_bound_at_once() {
        let (bound, listeners) = bind(ANY_PORT, 2).unwrap();
        let client = TcpStream::connect(bound).unwrap();
        let served = listeners.iter().find_map(|listener| listener.accept().ok());
        // Closed here first, the connection is left in TIME_WAIT on the listening side.
        drop(served);
        drop(client);
        drop(listeners);
        bind(bound, 2).unwrap();
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_both_families_and_others_only_ipv6() {
        let (bound, _listeners) = bind((Ipv6Addr::UNSPECIFIED, 0).into(), 2).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, bound.port())).unwrap();
        TcpStream::connect((Ipv6Addr::LOCALHOST, bound.port())).unwrap();

        let (bound, _listeners) = bind((Ipv6Addr::LOCALHOST, 0).into(), 1).unwrap();
        TcpStream::connect(bound).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, bound.port())).unwrap_err();
    }

    #[test]
    fn no_workers_is_an_error() {
        let error = bind(ANY_PORT, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
