//! A cluster's objects stand in for files.
//!
//! Takes: a kubeconfig, found as kubectl finds it. Gives: the objects of every kind that has a say about a request, each
//! kind listed once, page by page; and what cannot be read, which harms only itself. Never writes, never watches, and
//! gives no half a list: what the API server refuses ends it.

use std::time::Duration;

use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config};
use umbra_api::{Guarded, Undecodable, Watchable, Watched, opened};

use crate::args::ClusterArgs;
use crate::files::{Object, ObjectId, ObjectKind};

/// Objects of one answer, as kubectl has it.
const PAGE: u32 = 500;
/// For one page; a person waits for the whole.
const PATIENCE: Duration = Duration::from_secs(30);
/// The API server keeps the state that a list began with for 5 minutes; then its next page is gone.
const GONE: u16 = 410;

/// Why a cluster's objects are not known.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No kubeconfig, or one that makes no sense.
    #[error(
        "kubeconfig: {0}; name one with --kubeconfig FILE or in KUBECONFIG, and its context with --context"
    )]
    Kubeconfig(#[from] KubeconfigError),
    /// The kubeconfig's certificates or credentials.
    #[error("kubeconfig: the user or the cluster of its context cannot be used: {0}")]
    Client(kube::Error),
    /// The CRDs are not there.
    #[error(
        "the cluster does not serve {resource} in {group}/{version}: install the CRDs (kubectl apply --server-side -k \
         crds, or Istio's own), or look at files with -f"
    )]
    NotServed {
        /// In the plural.
        resource: &'static str,
        /// Its API group.
        group: &'static str,
        /// The version that umbra reads.
        version: &'static str,
    },
    /// RBAC.
    #[error(
        "{message}: it takes the verb list on {resource} in all namespaces; let the kubeconfig's user have it by a \
         ClusterRole, or let somebody who has it print them for -f (kubectl get {resource} -A -o yaml)"
    )]
    Forbidden {
        /// As in a role: the plural, and the API group.
        resource: String,
        /// The API server's words: who may not do what.
        message: String,
    },
    /// Anything else.
    #[error("the API server does not list {resource}: {why}")]
    List {
        /// As in a role.
        resource: String,
        /// What went wrong.
        why: String,
    },
    /// The operating system.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What there is.
#[derive(Debug, Default)]
pub struct Listed {
    /// By kind, then as the API server has them.
    pub objects: Vec<(ObjectId, Object)>,
    /// What cannot be read.
    pub undecodable: Vec<(ObjectId, Undecodable)>,
}

/// Lists everything.
///
/// # Errors
/// See [`ClusterError`].
pub fn read(from: &ClusterArgs) -> Result<Listed, ClusterError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(list_all(from))
}

/// Nodes are left out: they have no say about one request, and few people may list them.
async fn list_all(from: &ClusterArgs) -> Result<Listed, ClusterError> {
    let client = client(from).await?;
    let (mut all, any) = (Listed::default(), ListParams::default);
    all.list(&client, any(), ObjectKind::VirtualService, Object::VirtualService).await?;
    all.list(&client, any(), ObjectKind::DestinationRule, Object::DestinationRule).await?;
    all.list(&client, any(), ObjectKind::Service, Object::Service).await?;
    all.list(&client, any(), ObjectKind::EndpointSlice, Object::EndpointSlice).await?;
    all.list(&client, any(), ObjectKind::Pod, Object::Pod).await?;
    all.list(&client, any(), ObjectKind::NetworkPolicy, Object::NetworkPolicy).await?;
    Ok(all)
}

async fn client(from: &ClusterArgs) -> Result<Client, ClusterError> {
    let options = KubeConfigOptions { context: from.context.clone(), ..KubeConfigOptions::default() };
    let mut config = match from.file() {
        Some(file) => Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await?,
        None => Config::from_kubeconfig(&options).await?,
    };
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    Client::try_from(config).map_err(ClusterError::Client)
}

impl Listed {
    async fn list<T: Watchable>(
        &mut self,
        client: &Client,
        mut page: ListParams,
        kind: ObjectKind,
        object: fn(T) -> Object,
    ) -> Result<(), ClusterError>
    where
        Watched<T>: kube::Resource<DynamicType = ()>,
    {
        let api = Api::<Guarded<T>>::all(client.clone());
        page.limit = Some(PAGE);
        let mut items = Vec::new();
        loop {
            match api.list(&page).await {
                Ok(found) => {
                    items.extend(found.items);
                    page.continue_token = found.metadata.continue_.filter(|token| !token.is_empty());
                }
                // Slower than the API server remembers: all at once, as kubectl does it.
                Err(kube::Error::Api(status)) if status.code == GONE && page.limit.is_some() => {
                    items.clear();
                    (page.limit, page.continue_token) = (None, None);
                    continue;
                }
                Err(error) => return Err(refused::<T>(error)),
            }
            if page.continue_token.is_none() {
                break;
            }
        }
        for item in items {
            match opened(item) {
                Ok(item) => {
                    self.objects.push((ObjectId { kind, key: item.metadata().key() }, object(item)));
                }
                Err(why) => self.undecodable.push((ObjectId { kind, key: why.key.clone() }, why)),
            }
        }
        Ok(())
    }
}

/// Whose fault it is that a kind cannot be listed.
fn refused<T: Watchable>(error: kube::Error) -> ClusterError {
    let resource =
        if T::GROUP.is_empty() { T::PLURAL.to_owned() } else { format!("{}.{}", T::PLURAL, T::GROUP) };
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            ClusterError::NotServed { resource: T::PLURAL, group: T::GROUP, version: T::VERSION }
        }
        kube::Error::Api(status) if status.code == 403 => {
            ClusterError::Forbidden { resource, message: status.message }
        }
        kube::Error::Api(status) => ClusterError::List { resource, why: status.message },
        other => ClusterError::List { resource, why: in_full(&other) },
    }
}

/// With what caused it: the outermost error says little ("client error (Connect)").
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}
