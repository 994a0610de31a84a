//! Which connections are used again, against replicas that close what rests.

use super::*;

const H1: ReplicaProtocol = ReplicaProtocol::H1;

/// Makes a call on each of `count` connections at once, each answered with these fields; gives the replica's ends.
async fn rested(
    (listener, replica): (&TcpListener, &Arc<Replica>),
    pools: &Pools,
    fields: &str,
    count: usize,
) -> Vec<TcpStream> {
    let calls = async {
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(pools.connection(replica, &DEADLINES).await.unwrap());
        }
        for connection in connections {
            assert!(connection.connect_time().is_some());
            let response = connection.send(post(Body::full("hi")), &DEADLINES).await.unwrap();
            assert_eq!(text(response).await.unwrap(), "ok");
        }
    };
    let script = async {
        let mut sockets = Vec::new();
        for _ in 0..count {
            sockets.push(listener.accept().await.unwrap().0);
        }
        for socket in &mut sockets {
            read_until(socket, "hi").await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        sockets
    };
    let ((), sockets) = tokio::join!(calls, script);
    assert!(pools.idle() >= count);
    sockets
}

/// Whether a call after `rest` gets a connection that was there.
async fn reuses(pools: &Pools, replica: &Arc<Replica>, rest: Duration) -> bool {
    pools.advance(Instant::now() + rest);
    pools.connection(replica, &DEADLINES).await.unwrap().connect_time().is_none()
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(flavor = "local")]
async fn a_close_that_the_reactor_has_not_seen_yet_is_seen_at_the_socket() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let mut sockets = rested((&listener, &replica), &pools, "", 1).await;
    // Closed with nothing awaited until the connection is asked for: the reactor cannot know.
    drop(sockets.remove(0).into_std().unwrap());
    assert!(!reuses(&pools, &replica, ms(200)).await);
    assert_eq!(pools.idle(), 0);
}

#[tokio::test(flavor = "local")]
async fn a_close_puts_the_others_under_suspicion_however_short_they_have_rested() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let mut sockets = rested((&listener, &replica), &pools, "", 3).await;
    pools.advance(Instant::now());
    let connection = pools.connection(&replica, &DEADLINES).await.unwrap();
    assert!(connection.connect_time().is_none());
    // All of them at once, as at a restart; the one in use is found out when the call is sent or answered.
    sockets.drain(..).for_each(|socket| drop(socket.into_std().unwrap()));
    connection.send(post(Body::full("hi")), &DEADLINES).await.unwrap_err();
    assert!(!reuses(&pools, &replica, Duration::ZERO).await);
    assert_eq!(pools.idle(), 0);
}

#[tokio::test(flavor = "local")]
async fn at_first_only_short_rests_are_trusted_and_one_connection_stays_to_tell() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let _sockets = rested((&listener, &replica), &pools, "", 3).await;
    assert!(reuses(&pools, &replica, ms(300)).await);
    assert!(!reuses(&pools, &replica, ms(600)).await);
    assert_eq!(pools.idle(), 1);
}

#[tokio::test(flavor = "local")]
async fn longer_rests_are_trusted_once_a_connection_has_outlasted_them() {
    for (rest, reused) in [(9_000, true), (10_100, false)] {
        let (listener, replica) = listen(H1).await;
        let pools = Pools::new();
        let _witness = rested((&listener, &replica), &pools, "", 1).await;
        // It is open still after 21 seconds, of which one may be the clock's: ten are safe.
        let later = Instant::now() + ms(21_000);
        pools.sweep(later);
        let _other = rested((&listener, &replica), &pools, "", 1).await;
        pools.advance(later + ms(rest));
        let connection = pools.connection(&replica, &DEADLINES).await.unwrap();
        assert_eq!(connection.connect_time().is_none(), reused, "after {rest} ms");
    }
}

#[tokio::test(flavor = "local")]
async fn what_the_replica_says_of_its_patience_is_halved() {
    for (rest, reused) in [(1_900, true), (2_100, false)] {
        let (listener, replica) = listen(H1).await;
        let pools = Pools::new();
        let _socket = rested((&listener, &replica), &pools, "Keep-Alive: timeout=4, max=100\r\n", 1).await;
        assert_eq!(reuses(&pools, &replica, ms(rest)).await, reused, "after {rest} ms");
    }
}

#[tokio::test(flavor = "local")]
async fn a_replica_that_closes_early_is_believed_less() {
    let (listener, replica) = listen(H1).await;
    let pools = Pools::new();
    let mut sockets = rested((&listener, &replica), &pools, "Keep-Alive: timeout=60\r\n", 2).await;
    drop(sockets.remove(0));
    let now = Instant::now();
    while pools.idle() == 2 {
        tokio::task::yield_now().await;
        pools.sweep(now + ms(10_000));
    }
    // It kept the other one for nine seconds at least, and no longer counts for more.
    assert!(!reuses(&pools, &replica, ms(10_000)).await);
}
