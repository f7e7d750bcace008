//! How connections come to the listener on this node: the kernel's side as the owner of the configuration sees it.
//!
//! Takes: what is to be taken over. Gives: whether that can be done here, and whether it is being done just now.

use std::net::SocketAddr;

use tokio::sync::watch;

use crate::arm::Reach;
use crate::intercept::cni::{self, Cni, Hidden};
use crate::intercept::{InterceptError, Interception, Interceptor};

/// Told to everybody whose service is wanted, and left to others, because connections do not arrive.
const BLOCKED: &str = "not armed: blocked: connections given to port 15001 do not arrive: something on this node drops \
                       them (an INPUT firewall); accept TCP port 15001 from pods; umbra tries again by itself";

/// The kernel's side, or nothing on a laptop.
pub(crate) trait Intercept: Send + 'static {
    /// Takes over exactly this; an error leaves what was there.
    fn set(&self, wanted: Interception) -> impl Future<Output = Result<(), InterceptError>> + Send;
    /// Which services can be taken over.
    fn reach(&self) -> &Reach;
    /// Looks again at what [`Intercept::reach`] depends on. Short.
    fn look(&mut self) {}
    /// Why nothing of what was set is taken over just now, if so.
    fn lapse(&self) -> Option<&'static str> {
        None
    }
    /// Ends when [`Intercept::lapse`] has changed. Cancel safe.
    fn changed(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// No interception: clients come by themselves, or the kernel has not what it takes.
pub(crate) struct Without(pub(crate) Reach);

impl Intercept for Without {
    async fn set(&self, _wanted: Interception) -> Result<(), InterceptError> {
        Ok(())
    }

    fn reach(&self) -> &Reach {
        &self.0
    }
}

/// The nft table.
pub(crate) struct Kernel {
    interceptor: Interceptor,
    blocked: watch::Receiver<bool>,
    /// Whether to look, and at which ClusterIP.
    cni: Cni,
    canary: Option<SocketAddr>,
    /// Where it is not hidden.
    listeners: Reach,
    hidden: Option<Hidden>,
    reach: Reach,
}

impl Kernel {
    /// Looks at the node's network, when told to.
    pub(crate) fn new(
        interceptor: Interceptor,
        listeners: Reach,
        cni: Cni,
        canary: Option<SocketAddr>,
    ) -> Self {
        let blocked = interceptor.blocked();
        let reach = listeners.clone();
        let mut kernel = Self { interceptor, blocked, cni, canary, listeners, hidden: None, reach };
        kernel.look();
        kernel
    }
}

impl Intercept for Kernel {
    async fn set(&self, wanted: Interception) -> Result<(), InterceptError> {
        self.interceptor.set(wanted).await
    }

    fn reach(&self) -> &Reach {
        &self.reach
    }

    fn look(&mut self) {
        if self.cni == Cni::Trust {
            return;
        }
        let hidden = match cni::look() {
            Ok(hidden) => hidden.or(self.canary.filter(|_| self.interceptor.is_hidden()).map(Hidden::Canary)),
            Err(error) => {
                tracing::warn!(%error, "network interfaces cannot be listed; tried again in a minute");
                return;
            }
        };
        if hidden == self.hidden {
            return;
        }
        self.hidden = hidden;
        self.reach = match hidden {
            Some(hidden) => {
                tracing::error!("{}", hidden.reason());
                Reach::Nowhere { reason: hidden.reason() }
            }
            None => self.listeners.clone(),
        };
    }

    fn lapse(&self) -> Option<&'static str> {
        self.blocked.borrow().then_some(BLOCKED)
    }

    async fn changed(&mut self) {
        if self.blocked.changed().await.is_err() {
            // The thread has ended; the process is ending, too.
            std::future::pending().await
        }
    }
}
