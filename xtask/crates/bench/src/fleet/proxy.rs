//! The network of a bench: a proxy before each host, which counts bytes and adds a delay.
//!
//! The responses of a host are delayed per connection and in order, so a round trip takes that much longer. Like with
//! TCP, a connection is established after the delay. Losses, bandwidth and slow start are not simulated.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// The connections to all hosts.
#[derive(Default)]
pub struct Network {
    delay_ms: AtomicU64,
    bytes: AtomicU64,
}

impl Network {
    /// Sets the delay of a round trip.
    pub fn set_delay(&self, ms: u64) {
        self.delay_ms.store(ms, Ordering::Relaxed);
    }

    /// Bytes in both directions since the last call.
    pub fn take_bytes(&self) -> u64 {
        self.bytes.swap(0, Ordering::Relaxed)
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.load(Ordering::Relaxed))
    }

    /// Starts a proxy for a local port and returns its port. It ends with this process.
    pub fn proxy(self: &Arc<Self>, to: u16) -> io::Result<u16> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let network = Arc::clone(self);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let network = Arc::clone(&network);
                // Both ends notice a broken connection.
                thread::spawn(move || drop(network.connect(client, to)));
            }
        });
        Ok(port)
    }

    fn connect(self: Arc<Self>, client: TcpStream, to: u16) -> io::Result<()> {
        thread::sleep(self.delay());
        let host = TcpStream::connect(("127.0.0.1", to))?;
        for stream in [&client, &host] {
            stream.set_nodelay(true)?;
        }
        let (from_host, to_client) = (host.try_clone()?, client.try_clone()?);
        let network = Arc::clone(&self);
        thread::spawn(move || network.pass_later(from_host, to_client));
        self.pass(client, host);
        Ok(())
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut piece = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut piece) {
            self.bytes.fetch_add(n as u64, Ordering::Relaxed);
            if to.write_all(&piece[..n]).is_err() {
                break;
            }
        }
        end(&from, &to);
    }

    /// Like `pass`, with a delay for each piece.
    fn pass_later(&self, mut from: TcpStream, mut to: TcpStream) {
        let (sender, pieces) = channel::<(Instant, Vec<u8>)>();
        let arrive = thread::spawn(move || {
            for (due, piece) in pieces {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&piece).is_err() {
                    break;
                }
            }
            to
        });
        let mut piece = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut piece) {
            self.bytes.fetch_add(n as u64, Ordering::Relaxed);
            if sender.send((Instant::now() + self.delay(), piece[..n].to_vec())).is_err() {
                break;
            }
        }
        drop(sender);
        if let Ok(to) = arrive.join() {
            end(&from, &to);
        }
    }
}

/// Half-closes a connection. The other side may be gone.
fn end(from: &TcpStream, to: &TcpStream) {
    let _ = (from.shutdown(Shutdown::Read), to.shutdown(Shutdown::Write));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_passes_all_bytes_counted_and_delayed() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let network = Arc::new(Network::default());
        let port = network.proxy(listener.local_addr().unwrap().port()).unwrap();
        thread::spawn(move || {
            for mut host in listener.incoming().flatten() {
                let mut said = Vec::new();
                host.read_to_end(&mut said).unwrap();
                host.write_all(&said).unwrap();
            }
        });
        let said: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        for delay in [0, 80] {
            network.set_delay(delay);
            let started = Instant::now();
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.write_all(&said).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).unwrap();
            assert!(heard == said, "{} bytes of {}", heard.len(), said.len());
            assert!(started.elapsed() >= Duration::from_millis(2 * delay), "to connect, and to be answered");
            assert_eq!(network.take_bytes(), 400_000);
        }
    }
}
