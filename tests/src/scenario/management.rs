//! The management API of the lab's own broker, and a virtual host for each scenario. It knows no scenario.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// `guest:guest`, the account a new node has.
const AUTHORIZATION: &str = "Basic Z3Vlc3Q6Z3Vlc3Q=";

/// A node's API.
#[derive(Clone, Copy, Debug)]
pub(super) struct Management {
    pub(super) port: u16,
}

impl Management {
    /// A virtual host of this name, with a user of the same name. The tag `management` keeps other scenarios' queues from it.
    pub(super) fn open_vhost(self, name: &str, password: &str, tag: &str) -> Result<()> {
        self.call("PUT", &format!("/api/vhosts/{name}"), &json!({}))?;
        self.call("PUT", &format!("/api/users/{name}"), &json!({ "password": password, "tags": tag }))?;
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        // In `/` is the exchange of the broker's own events.
        for (vhost, user) in [(name, name), ("%2F", name), (name, "guest")] {
            self.call("PUT", &format!("/api/permissions/{vhost}/{user}"), &all)?;
        }
        Ok(())
    }

    /// Removes the virtual host, and the users that were made for it: NAME and NAME-….
    pub(super) fn close_vhost(self, name: &str) -> Result<()> {
        // A scenario may have removed it already.
        if self.call("GET", &format!("/api/vhosts/{name}"), &Value::Null).is_ok() {
            self.call("DELETE", &format!("/api/vhosts/{name}"), &Value::Null)?;
        }
        let users = self.call("GET", "/api/users", &Value::Null)?;
        let names = users.as_array().into_iter().flatten().filter_map(|user| user["name"].as_str());
        let ours = |user: &&str| {
            user.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        for user in names.filter(ours) {
            self.call("DELETE", &format!("/api/users/{user}"), &Value::Null)?;
        }
        Ok(())
    }

    /// One request. HTTP/1.0, so that the answer ends with the connection.
    fn call(self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let asked = || format!("{method} {path} on port {}", self.port);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).with_context(asked)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: {AUTHORIZATION}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .with_context(asked)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).with_context(asked)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, content) = answer.split_once("\r\n\r\n").with_context(asked)?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            bail!("{}: {} {}", asked(), head.lines().next().unwrap_or_default(), content.trim());
        }
        Ok(serde_json::from_str(content).unwrap_or(Value::Null))
    }
}
