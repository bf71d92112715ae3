//! One errand to a broker: connect, do it, leave. Knows AMQP's client; what the errand is, it is told. Errors name the broker by its
//! address alone, since its URL holds a password.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use lapin::{
    Channel, Connection, ConnectionProperties,
    uri::{AMQPScheme, AMQPUri},
};

use super::printable;

/// A broker that does not answer in this time does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does `errand` on a channel of a connection of its own. `attempted` says what that is, for errors.
///
/// # Errors
/// When the broker cannot be reached or refuses us, and the errand's own.
pub(super) fn with_channel<T>(
    attempted: &str,
    url: &str,
    errand: impl AsyncFnOnce(&Channel) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the client's event loop")?;
    let done = async { tokio::time::timeout(PATIENCE, on_channel(url, errand)).await };
    let broker = address(url);
    runtime
        .block_on(done)
        .map_err(|_| anyhow!("no answer for {} s; is it a broker's AMQP port?", PATIENCE.as_secs()))
        .and_then(|result| result)
        .with_context(|| format!("cannot {attempted} at {broker}"))
}

async fn on_channel<T>(
    url: &str,
    errand: impl AsyncFnOnce(&Channel) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let url = if url.contains("://") { url.to_owned() } else { format!("amqp://{url}") };
    // The parser's own error may quote the password.
    let uri: AMQPUri = url
        .parse()
        .map_err(|_| anyhow!("the URL cannot be read; write amqp://user:password@host:port/vhost"))?;
    if uri.scheme == AMQPScheme::AMQPS {
        bail!("TLS is not supported yet; use a port without it");
    }
    let properties = ConnectionProperties::default().with_connection_name("observer".into());
    let connection = Connection::connect_uri(uri, properties).await.map_err(refused)?;
    let channel = connection.create_channel().await.map_err(refused)?;
    let result = errand(&channel).await;
    // What was done is done, whatever comes of the farewell.
    let _ = connection.close(200, "done".into()).await;
    result
}

/// A broker's URL without user, password and options.
fn address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('?').next().unwrap_or_default();
    // A password may hold any of / and @: what stands after the last @ cannot be part of it.
    printable(rest.rsplit_once('@').map_or(rest, |(_, address)| address))
}

/// A client's error without what it may quote of the URL.
pub(super) fn refused(error: lapin::Error) -> anyhow::Error {
    match error.kind() {
        lapin::ErrorKind::IOError(error) => anyhow!("{error}"),
        lapin::ErrorKind::ProtocolError(error) => anyhow!("{}", printable(&error.to_string())),
        lapin::ErrorKind::InvalidConnectionState(_) | lapin::ErrorKind::InvalidChannelState(..) => {
            anyhow!("the broker closed the connection; are user, password and virtual host right?")
        }
        _ => anyhow!("{}", printable(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_named_without_its_secrets() {
        assert_eq!(address("amqp://me:p/a@ss@rabbit:5672/jobs?heartbeat=5"), "rabbit:5672/jobs");
        assert_eq!(address("rabbit:5672"), "rabbit:5672");
    }
}
