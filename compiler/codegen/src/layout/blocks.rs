//! Movements between channels and pixels, or among channels, that a region makes without leaving its layout.

use super::Rewriter;
use ir::{Attrs, Node, Result, Tensor, ValueId};

impl Rewriter<'_> {
    /// Channels in groups that are dealt out anew: a reshape, a transpose and a reshape back, which become ones of the last
    /// dims.
    pub(super) fn shuffled(&mut self, n: &Node) -> Result<bool> {
        let Some(x) = n.input(0).filter(|&x| n.is("Reshape") && self.resident(x)) else { return Ok(false) };
        let only = |n: &Node, op: &str| {
            let y = n.output(0).filter(|&y| self.old.uses(y).len() == 1)?;
            let id = *self.old.consumers(y).first()?;
            let next = self.old.get(id).filter(|next| next.is(op) && next.input(0) == Some(y))?;
            Some((id, next))
        };
        let shape = |v: Option<ValueId>| v.and_then(|v| self.old.ty(v).concrete());
        let Some((turn, turned)) = only(n, "Transpose") else { return Ok(false) };
        let Some((back, whole)) = only(turned, "Reshape") else { return Ok(false) };
        let (Some(from), Some(apart), Some(to)) =
            (shape(Some(x)), shape(n.output(0)), shape(whole.output(0)))
        else {
            return Ok(false);
        };
        let [batch, _, spatial @ ..] = &from[..] else { return Ok(false) };
        let [outer, a, b, rest @ ..] = &apart[..] else { return Ok(false) };
        let swapped = [0, 2, 1].into_iter().chain(3..apart.len());
        let deals = from == to && (outer, rest) == (batch, spatial) && !apart.contains(&0);
        if !deals || !ops::transpose::perm(&turned.attrs, apart.len())?.into_iter().eq(swapped) {
            return Ok(false);
        }
        let (a, b, rank) = (*a, *b, from.len() as i64);
        let dims = |last: &[usize]| -> Vec<i64> {
            [batch].into_iter().chain(spatial).chain(last).map(|&d| d as i64).collect()
        };
        let (grouped, joined) = (dims(&[a, b]), dims(&[a * b]));
        let perm: Vec<i64> = (0..rank - 1).chain([rank, rank - 1]).collect();
        self.done.extend([turn, back]);
        self.dealt([n, turned, whole], x, grouped, perm, joined)
    }

    /// Blocks of pixels out of channels, or into them, with the dims cut in two; the transposes move whole runs of channels.
    pub(super) fn blocks(&mut self, n: &Node) -> Result<bool> {
        let Some(x) = n.input(0).filter(|&x| self.resident(x)) else { return Ok(false) };
        let apart = n.is("DepthToSpace");
        if !apart && !n.is("SpaceToDepth") || !Self::one_output(n) {
            return Ok(false);
        }
        let (Some(from), Some(to)) =
            (self.old.ty(x).concrete(), n.output(0).and_then(|y| self.old.ty(y).concrete()))
        else {
            return Ok(false);
        };
        let b = n.attrs.require_int("blocksize")?;
        let (&[batch, channels, h, w], &[_, out, tall, wide]) = (&from[..], &to[..]) else {
            return Ok(false);
        };
        let [batch, channels, h, w, out, tall, wide] =
            [batch, channels, h, w, out, tall, wide].map(|d| d as i64);
        let (dims, perm) = match (apart, n.attrs.str_or("mode", "DCR")?) {
            (true, "DCR") => ([batch, h, w, b, b, out], [0, 1, 3, 2, 4, 5]),
            (true, "CRD") => ([batch, h, w, out, b, b], [0, 1, 4, 2, 5, 3]),
            (false, "DCR") => ([batch, tall, b, wide, b, channels], [0, 1, 3, 2, 4, 5]),
            (false, "CRD") => ([batch, tall, b, wide, b, channels], [0, 1, 3, 5, 2, 4]),
            _ => return Ok(false),
        };
        if dims.iter().any(|&d| d <= 0) {
            return Ok(false);
        }
        self.dealt([n, n, n], x, dims.to_vec(), perm.to_vec(), vec![batch, tall, wide, out])
    }

    /// The channels-last value of `x` with its dims grouped, permuted and joined, as what the last of three nodes gives.
    fn dealt(
        &mut self,
        [first, turned, whole]: [&Node; 3],
        x: ValueId,
        grouped: Vec<i64>,
        perm: Vec<i64>,
        joined: Vec<i64>,
    ) -> Result<bool> {
        let (reshape, transpose) = (ops::standard("Reshape")?, ops::standard("Transpose")?);
        let last = self.last(x)?;
        let grouped = self.new.add_initializer("shape", Tensor::vector(grouped));
        let groups = self.emit(first, reshape, Attrs::new(), &[Some(last), Some(grouped)])?;
        ir::infer_node(&mut self.new, groups)?;
        let groups = self.new.node(groups)?.output(0);
        let dealt = self.emit(turned, transpose, Attrs::new().with("perm", perm), &[groups])?;
        ir::infer_node(&mut self.new, dealt)?;
        let dealt = self.new.node(dealt)?.output(0);
        let joined = self.new.add_initializer("shape", Tensor::vector(joined));
        self.region(whole, reshape, Attrs::new(), &[dealt, Some(joined)])
    }
}
