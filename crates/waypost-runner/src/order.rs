//! The start order of a stack, derived from the dependencies of its services.

use std::collections::HashMap;

use crate::error::BuildError;
use crate::service::ServiceSpec;

/// Groups the services, by index, into waves: each service depends only on services of earlier
/// waves. The waves are stopped one at a time, the last one first.
pub(crate) fn waves(services: &[ServiceSpec]) -> Result<Vec<Vec<usize>>, BuildError> {
    let index: HashMap<&str, usize> = services
        .iter()
        .enumerate()
        .map(|(i, service)| (service.name.as_str(), i))
        .collect();
    let mut edges = Vec::with_capacity(services.len());
    for service in services {
        let mut targets = Vec::new();
        for dependency in &service.after {
            let target = index.get(dependency.service.as_str()).ok_or_else(|| {
                BuildError::UnknownDependency {
                    service: service.name.clone(),
                    dependency: dependency.service.clone(),
                    known: services.iter().map(|s| s.name.clone()).collect(),
                }
            })?;
            targets.push(*target);
        }
        edges.push(targets);
    }

    let mut search = Search {
        edges: &edges,
        depth: vec![None; services.len()],
        path: Vec::new(),
    };
    let mut waves: Vec<Vec<usize>> = Vec::new();
    for node in 0..services.len() {
        let depth = search.depth(node).map_err(|cycle| {
            let names = cycle.into_iter().map(|i| services[i].name.clone());
            BuildError::Cycle(names.collect())
        })?;
        waves.resize_with(waves.len().max(depth + 1), Vec::new);
        waves[depth].push(node);
    }
    Ok(waves)
}

/// A depth-first search over the dependencies.
struct Search<'a> {
    edges: &'a [Vec<usize>],
    depth: Vec<Option<usize>>,
    path: Vec<usize>,
}

impl Search<'_> {
    /// The length of the longest chain of dependencies below `node`, or the cycle that it leads to.
    fn depth(&mut self, node: usize) -> Result<usize, Vec<usize>> {
        if let Some(depth) = self.depth[node] {
            return Ok(depth);
        }
        if let Some(start) = self.path.iter().position(|&visited| visited == node) {
            let mut cycle = self.path.split_off(start);
            cycle.push(node);
            return Err(cycle);
        }
        self.path.push(node);
        let mut depth = 0;
        for &target in &self.edges[node] {
            depth = depth.max(self.depth(target)? + 1);
        }
        self.path.pop();
        self.depth[node] = Some(depth);
        Ok(depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, after: &[&str]) -> ServiceSpec {
        after
            .iter()
            .fold(ServiceSpec::new(name, "true"), |service, dependency| {
                service.after(*dependency)
            })
    }

    #[test]
    fn waves_follow_the_longest_chain() {
        let stack = [
            service("ui", &["gateway"]),
            service("gateway", &["registry"]),
            service("ai-models", &["registry"]),
            service("registry", &[]),
        ];
        assert_eq!(waves(&stack), Ok(vec![vec![3], vec![1, 2], vec![0]]));
    }

    #[test]
    fn a_cycle_is_reported_as_a_path() {
        let stack = [
            service("ui", &["a"]),
            service("a", &["b"]),
            service("b", &["c"]),
            service("c", &["a"]),
        ];
        let error = waves(&stack).unwrap_err().to_string();
        assert_eq!(error, "dependency cycle: a -> b -> c -> a");
    }

    #[test]
    fn a_service_that_depends_on_itself_is_a_cycle() {
        let error = waves(&[service("a", &["a"])]).unwrap_err().to_string();
        assert_eq!(error, "dependency cycle: a -> a");
    }

    #[test]
    fn an_unknown_dependency_is_reported_with_the_known_services() {
        let error = waves(&[service("ui", &["gatewy"]), service("gateway", &[])]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "service `ui`, after: unknown service `gatewy` (known: `ui`, `gateway`)"
        );
    }
}
