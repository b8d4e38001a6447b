//! Where peers are, and what is spoken there: `HOST:PORT` for plain TCP, `ws://HOST:PORT[/PATH]` for a WebSocket.

use std::io;

/// An address as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(String),
    #[cfg_attr(not(feature = "websocket"), allow(dead_code))]
    WebSocket {
        url: String,
        /// `HOST:PORT`.
        host: String,
    },
}

impl Address {
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if this build does not speak what the address asks for.
    pub(crate) fn parse(address: &str) -> io::Result<Self> {
        let Some((scheme, rest)) = address.split_once("://") else {
            return Ok(Self::Tcp(address.to_owned()));
        };
        match scheme {
            "ws" if cfg!(feature = "websocket") => {
                let host = rest.split('/').next().unwrap_or_default();
                let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
                Ok(Self::WebSocket {
                    url: address.to_owned(),
                    host: match has_port {
                        true => host.to_owned(),
                        false => format!("{host}:80"),
                    },
                })
            }
            _ => {
                let message = format!("addresses of the form {scheme}://… are not supported");
                Err(io::Error::new(io::ErrorKind::Unsupported, message))
            }
        }
    }

    /// The `HOST:PORT` to connect to, or to bind.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Tcp(host) | Self::WebSocket { host, .. } => host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_what_is_spoken() {
        let tcp = Address::parse("[::1]:80").unwrap();
        assert_eq!(tcp, Address::Tcp("[::1]:80".into()));
        let refused = Address::parse("gopher://host:1").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }

    #[cfg(feature = "websocket")]
    #[test]
    fn a_url_names_its_host_and_port() {
        for (url, host) in [
            ("ws://a.example:8080/x/y", "a.example:8080"),
            ("ws://a.example", "a.example:80"),
            ("ws://[::1]/x:1", "[::1]:80"),
            ("ws://[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(Address::parse(url).unwrap().host(), host, "{url}");
        }
        assert!(
            Address::parse("wss://a.example").is_err(),
            "TLS is the caller's"
        );
    }
}
