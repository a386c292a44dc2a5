//! The order of a stack: who waits for whom.

use std::collections::HashMap;

use crate::error::{BuildError, list};
use crate::process::Process;

/// The processes in waves: each waits only for processes of earlier waves. They end in the
/// opposite order, a wave at a time.
pub(crate) fn waves(processes: &[Process]) -> Result<Vec<Vec<usize>>, BuildError> {
    let index: HashMap<&str, usize> = processes
        .iter()
        .enumerate()
        .map(|(i, process)| (process.name.as_str(), i))
        .collect();
    let mut edges = Vec::with_capacity(processes.len());
    for process in processes {
        let mut targets = Vec::new();
        for dependency in &process.after {
            let target = index.get(dependency.name.as_str()).ok_or_else(|| {
                BuildError::UnknownDependency {
                    process: process.name.clone(),
                    dependency: dependency.name.clone(),
                    known: list(processes.iter().map(|p| p.name.as_str())),
                }
            })?;
            targets.push(*target);
        }
        edges.push(targets);
    }

    let mut walk = Walk {
        edges: &edges,
        depth: vec![None; processes.len()],
        path: Vec::new(),
    };
    let mut waves: Vec<Vec<usize>> = Vec::new();
    for node in 0..processes.len() {
        let depth = walk.depth(node).map_err(|circle| {
            BuildError::Cycle(
                circle
                    .into_iter()
                    .map(|i| processes[i].name.clone())
                    .collect(),
            )
        })?;
        waves.resize_with(waves.len().max(depth + 1), Vec::new);
        waves[depth].push(node);
    }
    Ok(waves)
}

struct Walk<'a> {
    edges: &'a [Vec<usize>],
    depth: Vec<Option<usize>>,
    path: Vec<usize>,
}

impl Walk<'_> {
    /// The longest way down from `node`, or the circle that it is part of.
    fn depth(&mut self, node: usize) -> Result<usize, Vec<usize>> {
        if let Some(depth) = self.depth[node] {
            return Ok(depth);
        }
        if let Some(start) = self.path.iter().position(|&visited| visited == node) {
            let mut circle = self.path.split_off(start);
            circle.push(node);
            return Err(circle);
        }
        self.path.push(node);
        let mut depth = 0;
        for &target in self.edges[node].iter() {
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

    fn process(name: &str, after: &[&str]) -> Process {
        after
            .iter()
            .fold(Process::new(name, "true"), |process, dependency| {
                process.after(*dependency)
            })
    }

    #[test]
    fn waves_follow_the_longest_chain() {
        let stack = [
            process("ui", &["gateway"]),
            process("gateway", &["registry"]),
            process("ai-models", &["registry"]),
            process("registry", &[]),
        ];
        assert_eq!(waves(&stack), Ok(vec![vec![3], vec![1, 2], vec![0]]));
    }

    #[test]
    fn a_cycle_is_shown_as_a_path() {
        let stack = [
            process("ui", &["a"]),
            process("a", &["b"]),
            process("b", &["c"]),
            process("c", &["a"]),
        ];
        let error = waves(&stack).unwrap_err().to_string();
        assert_eq!(error, "processes wait for each other: a -> b -> c -> a");
    }

    #[test]
    fn a_process_that_waits_for_itself_is_a_cycle() {
        let error = waves(&[process("a", &["a"])]).unwrap_err().to_string();
        assert_eq!(error, "processes wait for each other: a -> a");
    }

    #[test]
    fn an_unknown_dependency_lists_the_known_ones() {
        let error = waves(&[process("ui", &["gatewy"]), process("gateway", &[])]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "process `ui`, after: there is no process `gatewy`; the stack has `ui` and `gateway`"
        );
    }
}
