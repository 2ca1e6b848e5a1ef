//! What the node has, keeps for itself and has sold.

use api::latest::{ApiError, Capacity, ErrorCode, NodeSetRequest, Overcommit, Reserve, Sold};
use engine::{Failure, FailureKind, Fault, Holding};
use policy::NodeCapacity;
use ve::{Bits, Bytes, Factor, Limits, NodeSetting};

use crate::config::Config;
use crate::convert::{api_error, cores};
use crate::daemon::Up;

pub(super) fn set(up: &Up, request: &NodeSetRequest) -> Result<(), ApiError> {
    let settings = NodeSetting::parse_all(&request.settings).map_err(|error| {
        ApiError::new(ErrorCode::Usage, Fault::from_error(&error).message)
            .with_hint("`vessel node set --help` lists the keys and their units")
    })?;
    let root = &up.host.root;
    let save = |resources: &ve::NodeResources| {
        let failed = |error: anyhow::Error| {
            Failure::new(FailureKind::Failed, format!("{error:#}"))
                .with_hint("see that the disk of the node's root has room; nothing was changed")
        };
        let config = Config::load(root).map_err(failed)?;
        let mut config = config.unwrap_or_else(|| up.host.config.clone());
        config.set_resources(resources);
        config.save(root).map_err(failed)
    };
    let change = |resources: &mut ve::NodeResources| {
        settings.iter().for_each(|setting| resources.apply(setting));
    };
    up.engine.set_resources(change, save).map_err(api_error)
}

pub(super) fn capacity(node: &NodeCapacity, ves: u32) -> Capacity {
    Capacity {
        cpu_cores: cores(node.has.cpu),
        memory_bytes: node.has.memory.get(),
        disk_bytes: node.has.disk.get(),
        network_bits_per_second: node.resources.network_capacity.map(Bits::get),
        ves,
    }
}

pub(super) fn reserve(node: &NodeCapacity) -> Reserve {
    let known = node.resources.network_capacity.is_some();
    Reserve {
        cpu_cores: cores(node.cpu_reserve()),
        memory_bytes: node.memory_reserve().get(),
        disk_bytes: node.disk_reserve().get(),
        network_bits_per_second: known.then(|| node.network_reserve().get()),
    }
}

pub(super) fn overcommit(node: &NodeCapacity) -> Overcommit {
    let factor = |factor: Factor| f64::from(factor.thousandths()) / 1_000.0;
    Overcommit {
        cpu: node.resources.cpu_overcommit.map(factor),
        memory: node.resources.memory_overcommit.map(factor),
        disk: node.resources.disk_overcommit.map(factor),
    }
}

pub(super) fn sold(up: &Up) -> Sold {
    let holdings = up.engine.holdings();
    let sum = |all: bool, of: &dyn Fn(&Limits) -> Option<u64>| {
        let counted = holdings.values().filter(|holding| all || holding.runs);
        counted.filter_map(|holding| of(&holding.limits)).sum()
    };
    let total_cores = |all: bool, of: &dyn Fn(&Limits) -> Option<ve::Cores>| {
        let counted = holdings.values().filter(|holding| all || holding.runs);
        counted
            .filter_map(|holding| of(&holding.limits))
            .map(cores)
            .sum()
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Sold {
        cpu_guarantee_cores: total_cores(false, &|limits| limits.cpu_guarantee),
        cpu_limit_cores: total_cores(true, &|limits| limits.cpu),
        memory_guarantee_bytes: sum(false, &|limits| limits.memory_guarantee.map(Bytes::get)),
        memory_limit_bytes: sum(true, &|limits| limits.memory_now().map(Bytes::get)),
        disk_guarantee_bytes: sum(true, &|limits| limits.disk_guarantee.map(Bytes::get)),
        disk_limit_bytes: sum(true, &|limits| limits.disk.map(Bytes::get)),
        network_guarantee_bits_per_second: sum(false, &|limits| {
            limits.network_guarantee.map(Bits::get)
        }),
        network_limit_bits_per_second: sum(true, &|limits| limits.network.map(Bits::get)),
        ves: count(holdings.len()),
        ves_running: count(
            holdings
                .values()
                .filter(|holding: &&Holding| holding.runs)
                .count(),
        ),
    }
}
