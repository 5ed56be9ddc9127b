//! Convolutions in a row, a band of lines at a time: of what lies between them only the lines that the next one still reads
//! are kept, in memory that the second-level cache holds.

use crate::call::{Bands, Stage};
use crate::io::Io;
use crate::run::with_scratch;
use kernels::{ConvShape, Epilogue, Error, Residual, Serial, conv_f32};
use std::ops::Range;
use std::sync::Mutex;

/// Floats of a cache line.
const LINE: usize = 16;
/// A task has so many times the lines of the first result that it makes although another one does too.
const FEW_TWICE: usize = 4;
const SHAPE: Error = Error::Shape { what: "convolutions in bands" };

/// Floats that lie between convolutions in a row while a band of `lines` is made; none where that is beyond counting.
pub fn between(shapes: &[&ConvShape], lines: usize) -> Option<usize> {
    let sizes = kept(shapes, lines).ok()?.into_iter().zip(shapes);
    sizes.map(|(n, s)| n.checked_mul(line(s).ok()?)?.checked_next_multiple_of(LINE)).sum()
}

/// Lines of each result between convolutions in a row that a band of `lines` of the last result needs at once.
fn kept(shapes: &[&ConvShape], lines: usize) -> Result<Vec<usize>, Error> {
    let (mut kept, mut lines) = (Vec::new(), lines);
    for pair in shapes.windows(2).rev() {
        let s = pair[1];
        let window = s.kernel[1].saturating_sub(1).saturating_mul(s.dilation[1]).saturating_add(1);
        let read = lines.saturating_sub(1).saturating_mul(s.stride[1]).saturating_add(window);
        lines = read.min(pair[0].output()?[1]);
        kept.push(lines);
    }
    kept.reverse();
    Ok(kept)
}

/// Floats of a line of the result.
fn line(s: &ConvShape) -> Result<usize, Error> {
    s.output()?[2].checked_mul(s.cout).ok_or(SHAPE)
}

/// A stage of one run.
struct Ready<'a> {
    stage: &'a Stage,
    epilogue: Epilogue<'a>,
    /// Floats of an image of its result, and of a line.
    image: usize,
    line: usize,
}

impl<'a> Ready<'a> {
    fn of(stage: &'a Stage, io: &'a Io) -> Result<Ready<'a>, Error> {
        let line = line(&stage.shape)?;
        let image = line.checked_mul(stage.shape.output()?[1]).ok_or(SHAPE)?;
        image.checked_mul(stage.shape.batch).ok_or(SHAPE)?;
        Ok(Ready { stage, epilogue: stage.finish.epilogue(io, stage.shape.cout), image, line })
    }

    /// Makes lines `of` of image `index` from the lines that `shape` reads.
    fn make(
        &self,
        index: usize,
        of: Range<usize>,
        (shape, x): (&ConvShape, &[f32]),
        y: &mut [f32],
    ) -> Result<(), Error> {
        let before = index * self.image + of.start * self.line;
        let residual = match self.epilogue.residual {
            Some(r) => Some(Residual { data: r.data.get(before..).ok_or(SHAPE)?, ..r }),
            None => None,
        };
        let e = Epilogue { residual, ..self.epilogue };
        conv_f32(&Serial, shape, x, shape.cin, &self.stage.weights, y, shape.cout, &e)
    }
}

/// A result between two stages: some of its lines.
struct Middle<'a> {
    data: &'a mut [f32],
    /// Floats of a line.
    line: usize,
    /// The lines that are here, the first of them in front.
    held: Range<usize>,
}

impl Middle<'_> {
    /// Lets go of the lines before `of` and tells which of `of` are not here yet, and where they go.
    fn room(&mut self, of: &Range<usize>) -> Result<(Range<usize>, &mut [f32]), Error> {
        let old = std::mem::replace(&mut self.held, of.clone());
        let kept = of.start..old.end.max(of.start);
        if !kept.is_empty() {
            let from = kept.start.checked_sub(old.start).ok_or(SHAPE)? * self.line;
            self.data.copy_within(from..from + kept.len() * self.line, 0);
        }
        let place = kept.len() * self.line..of.len() * self.line;
        self.data.get_mut(place).map(|room| (kept.end..of.end, room)).ok_or(SHAPE)
    }
}

/// One image's way through the stages.
struct Image<'a> {
    index: usize,
    x: &'a [f32],
    /// Floats of a line of it.
    line: usize,
}

impl Image<'_> {
    /// Makes lines `of` of the last stage's result in `y`; `middles` are the results of those before.
    fn make(
        &self,
        stages: &[Ready],
        middles: &mut [Middle],
        of: Range<usize>,
        y: &mut [f32],
    ) -> Result<(), Error> {
        let (last, before) = stages.split_last().ok_or(SHAPE)?;
        let (shape, read) = last.stage.shape.lines(of.clone())?;
        let Some((middle, earlier)) = middles.split_last_mut() else {
            let x = self.x.get(read.start * self.line..read.end * self.line).ok_or(SHAPE)?;
            return last.make(self.index, of, (&shape, x), y);
        };
        let (new, room) = middle.room(&read)?;
        if !new.is_empty() {
            self.make(before, earlier, new, room)?;
        }
        last.make(self.index, of, (&shape, &middle.data[..read.len() * middle.line]), y)
    }
}

impl Bands {
    fn check(&self) -> Result<(), Error> {
        for pair in self.stages.windows(2) {
            let (a, b) = (&pair[0].shape, &pair[1].shape);
            if (a.output()?, a.batch, a.cout) != (b.input, b.batch, b.cin) {
                return Err(SHAPE);
            }
        }
        let height = self.stages.last().ok_or(SHAPE)?.shape.output()?[1];
        let all = self.stages.iter().all(|s| s.weights.takes_lines(&s.shape));
        if all && (1..=height).contains(&self.lines) { Ok(()) } else { Err(SHAPE) }
    }

    /// The first input through all stages.
    pub fn run(&self, io: &Io) -> Result<(), Error> {
        self.check()?;
        let stages: Vec<Ready> = self.stages.iter().map(|s| Ready::of(s, io)).collect::<Result<_, _>>()?;
        let (Some(first), Some(last)) = (self.stages.first(), stages.last()) else { return Err(SHAPE) };
        let (x, y) = (io.input::<f32>(0), io.output::<f32>(0));
        let s = &first.shape;
        let sizes = [s.input[2], s.cin, s.input[1], s.batch];
        let total = sizes.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or(SHAPE)?;
        if [x.len(), y.len()] != [total, last.image * s.batch] {
            return Err(SHAPE);
        }
        if total == 0 || y.is_empty() {
            return Err(SHAPE);
        }
        let (line, image) = (s.input[2] * s.cin, total / s.batch);
        let shapes: Vec<&ConvShape> = self.stages.iter().map(|s| &s.shape).collect();
        let kept = kept(&shapes, self.lines)?;
        let scratch = between(&shapes, self.lines).and_then(|n| n.checked_add(LINE));
        let share = self.share(io.pool.threads(), last.image / last.line, &kept);
        let parts: Vec<Mutex<(usize, usize, &mut [f32])>> = (y.chunks_mut(last.image).enumerate())
            .flat_map(|(i, y)| {
                y.chunks_mut(share * last.line).enumerate().map(move |(c, y)| (i, c * share, y))
            })
            .map(Mutex::new)
            .collect();
        let failure = Mutex::new(Ok(()));
        io.pool.run(parts.len(), &|t| {
            let mut part = parts[t].lock().unwrap_or_else(|e| e.into_inner());
            let (index, start, y) = &mut *part;
            let of = Image { index: *index, x: &x[*index * image..(*index + 1) * image], line };
            let done = with_scratch(scratch, |room| {
                let mut middles = middles(&stages, &kept, room)?;
                // Bands of a task are alike.
                let all = y.len() / last.line;
                let lines = all.div_ceil(all.div_ceil(self.lines));
                for (band, y) in y.chunks_mut(lines * last.line).enumerate() {
                    let first = *start + band * lines;
                    of.make(&stages, &mut middles, first..first + y.len() / last.line, y)?;
                }
                Ok(())
            });
            if let Err(error) = done {
                *failure.lock().unwrap_or_else(|e| e.into_inner()) = Err(error);
            }
        });
        failure.into_inner().unwrap_or_else(|e| e.into_inner())
    }

    /// Lines of the result that a task makes: as many for each thread, and little that two tasks make both.
    fn share(&self, threads: usize, height: usize, kept: &[usize]) -> usize {
        let batch = self.stages[0].shape.batch.max(1);
        let stride = self.stages[1..].iter().map(|s| s.shape.stride[1]).fold(1, usize::saturating_mul).max(1);
        let twice = kept.first().map_or(0, |k| k.saturating_sub(self.lines.saturating_mul(stride)));
        let least = twice.saturating_mul(FEW_TWICE).div_ceil(stride);
        let wanted = height.div_ceil(threads.max(1).div_ceil(batch));
        wanted.max(least).clamp(1, height)
    }
}

/// The room of each result between stages.
fn middles<'a>(stages: &[Ready], kept: &[usize], room: &'a mut [f32]) -> Result<Vec<Middle<'a>>, Error> {
    let start = room.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let mut rest = &mut room[start..];
    let mut middles = Vec::with_capacity(kept.len());
    for (lines, stage) in kept.iter().zip(stages) {
        let len = (lines * stage.line).next_multiple_of(LINE);
        let (data, behind) = std::mem::take(&mut rest).split_at_mut_checked(len).ok_or(SHAPE)?;
        middles.push(Middle { data, line: stage.line, held: 0..0 });
        rest = behind;
    }
    Ok(middles)
}
