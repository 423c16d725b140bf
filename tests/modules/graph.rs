//! Circles in a directed graph.

/// Returns the circles of a graph: its strongly connected components of more than one node (Tarjan, 1972).
///
/// `edges[node]` are the nodes to which an edge goes from `node`. The nodes of a circle are in ascending order.
pub fn circles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut search =
        Search { edges, order: vec![None; edges.len()], lowest: vec![0; edges.len()], ..Search::default() };
    for node in 0..edges.len() {
        if search.order[node].is_none() {
            search.visit(node);
        }
    }
    search.found.sort();
    search.found
}

#[derive(Default)]
struct Search<'a> {
    edges: &'a [Vec<usize>],
    visited: usize,
    /// The place of each node in the order of visits.
    order: Vec<Option<usize>>,
    /// The earliest visited node that is reachable from each node and still on the stack.
    lowest: Vec<usize>,
    stack: Vec<usize>,
    found: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn visit(&mut self, node: usize) {
        let place = self.visited;
        self.visited += 1;
        self.order[node] = Some(place);
        self.lowest[node] = place;
        self.stack.push(node);
        for &next in &self.edges[node] {
            match self.order[next] {
                None => {
                    self.visit(next);
                    self.lowest[node] = self.lowest[node].min(self.lowest[next]);
                }
                Some(earlier) if self.stack.contains(&next) => {
                    self.lowest[node] = self.lowest[node].min(earlier);
                }
                Some(_) => {}
            }
        }
        if self.lowest[node] == place {
            let at = self.stack.iter().position(|&on_stack| on_stack == node).unwrap();
            let mut component = self.stack.split_off(at);
            if component.len() > 1 {
                component.sort_unstable();
                self.found.push(component);
            }
        }
    }
}

#[test]
fn circles_are_found() {
    type Lists = &'static [&'static [usize]];
    let table: [(Lists, Lists); 6] = [
        (&[], &[]),
        (&[&[0]], &[]), // a file may name itself
        (&[&[1], &[2], &[]], &[]),
        (&[&[1], &[0]], &[&[0, 1]]),
        (&[&[1], &[2], &[0, 3], &[4], &[3], &[0]], &[&[0, 1, 2], &[3, 4]]),
        (&[&[1, 2], &[3], &[3], &[0]], &[&[0, 1, 2, 3]]),
    ];
    for (edges, expected) in table {
        let edges: Vec<Vec<usize>> = edges.iter().map(|next| next.to_vec()).collect();
        assert_eq!(circles(&edges), expected, "{edges:?}");
    }
}
