"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  const INK = "#262626", QUIET = "#666666", LINE = "#e0e0e0", MISSING = "#ececec", ALARM = "#c00018";
  const CURVE = "#0072b2", MEAN = "#d55e00", FONT = "12px system-ui, 'DejaVu Sans', sans-serif";
  const MODEL = { index: -1, name: "whole model" };
  const blocks = data.blocks.map(([index, name]) => ({ index, name }));
  const frozen = new Map(Object.entries(data.frozen).map(([block, epochs]) => [Number(block), new Set(epochs)]));
  const state = { statistic: 0, block: 0, column: null, logs: new Map() };

  // ---------------------------------------------------------------- numbers

  /** Three bytes a value: a float32 without its last byte. */
  function decode(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const bits = new Uint32Array(bytes.length / 3);
    for (let i = 0; i < bits.length; i++) {
      bits[i] = (bytes[3 * i] << 8) | (bytes[3 * i + 1] << 16) | (bytes[3 * i + 2] << 24);
    }
    return new Float32Array(bits.buffer);
  }

  const decoded = new Map();
  function values(statistic, what) {
    const key = data.statistics.indexOf(statistic) + what;
    if (!decoded.has(key)) decoded.set(key, statistic[what] === null ? null : decode(statistic[what]));
    return decoded.get(key);
  }

  /** The values of one block, one for each column (or epoch); all NaN for a block that was not measured. */
  function row(statistic, what, block) {
    const all = values(statistic, what), place = statistic.blocks.indexOf(block.index), n = statistic.blocks.length;
    if (all === null) return null;
    return Float32Array.from({ length: all.length / n }, (_, i) => (place < 0 ? NaN : all[i * n + place]));
  }

  function text(value, digits = 4) {
    if (Number.isNaN(value)) return "–";
    if (!Number.isFinite(value)) return "not finite";
    const size = Math.abs(value), rounded = Number(value.toPrecision(digits));
    const far = size !== 0 && (size < 1e-3 || size >= 1e5);
    return (far ? rounded.toExponential().replace("e+", "e") : String(rounded)).replaceAll("-", "−");
  }

  /** The words of ticks, with as many digits as tell them apart. */
  function texts(ticks, digits) {
    const words = ticks.map((tick) => text(tick, digits));
    return digits < 7 && new Set(words).size < words.length ? texts(ticks, digits + 1) : words;
  }

  const axisOf = (statistic) => data.axes[statistic.axis];
  const isGlobal = (statistic) => statistic.blocks.length === 1 && statistic.blocks[0] === -1;
  const rowsOf = (statistic) => (isGlobal(statistic) ? [MODEL] : blocks);
  const blockOf = (statistic) => (isGlobal(statistic) ? MODEL : blocks[state.block]);
  const label = (statistic) => `${statistic.kind} · ${statistic.name}`.replaceAll("_", " ").replace(/\bl([12])\b/, "L$1").replace("gsnr", "GSNR").replace("rms", "RMS");
  const isFrozen = (block, epoch) => frozen.has(block.index) && frozen.get(block.index).has(epoch);

  /** Where a step stands among the columns, as a fraction; the next sampled one if it was not sampled itself. */
  function position(axis, epoch, step) {
    let low = 0, high = axis.firstEpoch.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      const before = axis.lastEpoch[middle] < epoch || (axis.lastEpoch[middle] === epoch && axis.lastStep[middle] < step);
      if (before) low = middle + 1; else high = middle;
    }
    return low;
  }

  const start = (axis, i) => axis.starts[i] / axis.perColumn;
  const end = (axis, i) => (i + 1 < axis.starts.length ? axis.starts[i + 1] / axis.perColumn : axis.firstEpoch.length);

  function span(axis, column) {
    const from = `epoch ${axis.firstEpoch[column]}, step ${axis.firstStep[column] + 1}`;
    if (axis.perColumn === 1) return from;
    const sameEpoch = axis.firstEpoch[column] === axis.lastEpoch[column];
    return `${from} to ${sameEpoch ? "" : `epoch ${axis.lastEpoch[column]}, step `}${axis.lastStep[column] + 1}`;
  }

  // ---------------------------------------------------------------- scales

  function range(lists) {
    let low = Infinity, high = -Infinity, positive = Infinity;
    for (const list of lists) {
      if (list === null) continue;
      for (const value of list) {
        if (!Number.isFinite(value)) continue;
        if (value < low) low = value;
        if (value > high) high = value;
        if (value > 0 && value < positive) positive = value;
      }
    }
    return { low, high, positive };
  }

  const ranges = new Map();
  function rangeOf(statistic) {
    if (!ranges.has(statistic)) ranges.set(statistic, range([values(statistic, "mean")]));
    return ranges.get(statistic);
  }
  const canBeLog = ({ low, high, positive }) => low >= 0 && positive < high;
  function isLog(statistic) {
    const found = rangeOf(statistic);
    if (!canBeLog(found)) return false;
    return state.logs.has(statistic) ? state.logs.get(statistic) : found.high / found.positive > 20;
  }

  /** A function from values to [0, 1], with its ticks. */
  function scale({ low, high, positive }, log) {
    if (low > high) return { at: () => NaN, ticks: [] };
    if (log) {
      const a = Math.log10(positive), b = Math.log10(high);
      const at = (value) => Math.min(1, Math.max(0, (Math.log10(Math.max(value, positive)) - a) / (b - a)));
      const stride = Math.max(1, Math.ceil((b - a) / 6));
      let ticks = [];
      for (let power = Math.ceil(a - 1e-9); power <= b + 1e-9; power += stride) ticks.push(10 ** power);
      if (ticks.length < 2) ticks = [0, 1].flatMap((i) => [1, 2, 5].map((m) => m * 10 ** (Math.floor(a) + i))).filter((tick) => tick >= positive && tick <= high);
      if (ticks.length < 2) ticks = [positive, high];
      return { at, ticks };
    }
    if (low === high) { const margin = Math.abs(low) * 0.1; low -= margin; high += margin || 1; }
    const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw));
    const stride = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const ticks = [];
    for (let i = Math.ceil(low / stride - 1e-9); i * stride <= high + stride * 1e-9; i++) ticks.push(i * stride);
    return { at: (value) => (value - low) / (high - low), ticks };
  }

  // ---------------------------------------------------------------- drawing

  function prepare(canvas, height) {
    const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.clearRect(0, 0, width, height);
    context.font = FONT;
    context.textBaseline = "middle";
    return [context, width];
  }

  function write(context, words, x, y, { align = "left", color = INK, most = Infinity } = {}) {
    context.textAlign = align;
    context.fillStyle = color;
    while (words.length > 1 && context.measureText(words).width > most) words = `${words.slice(0, -2)}…`;
    context.fillText(words, x, y);
  }

  /** Hatch a stretch: what is frozen is neither zero nor missing. */
  function hatch(context, x, y, width, height) {
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    context.fillStyle = "#d8d8d8";
    context.fillRect(x, y, width, height);
    context.strokeStyle = "#a0a0a0";
    context.lineWidth = 1;
    context.beginPath();
    for (let at = x - height - (x % 6); at < x + width + 6; at += 6) { context.moveTo(at, y + height); context.lineTo(at + height, y); }
    context.stroke();
    context.restore();
  }

  /** Stretches of columns [from, to) in which a block was frozen and this statistic was not measured. */
  function restingStretches(statistic, block, mean) {
    const axis = axisOf(statistic), found = [];
    if (!frozen.has(block.index)) return found;
    for (let c = 0; c < mean.length; c++) {
      if (!Number.isNaN(mean[c]) || !isFrozen(block, axis.firstEpoch[c])) continue;
      const before = found[found.length - 1];
      if (before && before[1] === c) before[1] = c + 1; else found.push([c, c + 1]);
    }
    return found;
  }

  /** Marks and numbers of the epochs below a plot; a few steps where there are fewer epochs than marks. */
  function epochTicks(context, axis, left, top, bottom, perColumn) {
    const n = axis.epochs.length, stride = Math.max(1, Math.ceil(n / Math.max(2, Math.floor((perColumn * axis.firstEpoch.length) / 55))));
    context.strokeStyle = "#9a9a9a";
    context.lineWidth = 1;
    for (let i = 0; i < n; i += 1) {
      const x = Math.round(left + start(axis, i) * perColumn) + 0.5;
      const width = (end(axis, i) - start(axis, i)) * perColumn;
      if (i % stride === 0) {
        context.beginPath(); context.moveTo(x, bottom); context.lineTo(x, bottom + 5); context.stroke();
        write(context, String(axis.epochs[i]), x + Math.min(width * stride, 60) / 2, bottom + 14, { align: "center" });
      }
      if (top !== null && i > 0 && width > 10) {
        context.save(); context.strokeStyle = "rgba(255,255,255,.7)";
        context.beginPath(); context.moveTo(x, top); context.lineTo(x, bottom); context.stroke(); context.restore();
      }
    }
    write(context, "epoch", left + (perColumn * axis.firstEpoch.length) / 2, bottom + 30, { align: "center", color: QUIET });
  }

  const HEAT = { left: 150, right: 92, top: 14, bottom: 40, row: 20 };

  function drawHeat() {
    const statistic = data.statistics[state.statistic], axis = axisOf(statistic), rows = rowsOf(statistic);
    const bottom = HEAT.top + HEAT.row * rows.length;
    const [context, width] = prepare(element("heat"), bottom + HEAT.bottom);
    const n = axis.firstEpoch.length, plot = width - HEAT.left - HEAT.right, perColumn = plot / n;
    const { at, ticks } = scale(rangeOf(statistic), isLog(statistic));
    const colors = data.colors, color = (share) => colors[Math.min(colors.length - 1, Math.max(0, Math.round(share * (colors.length - 1))))];
    rows.forEach((block, r) => {
      const mean = row(statistic, "mean", block), y = HEAT.top + r * HEAT.row;
      context.fillStyle = MISSING;
      context.fillRect(HEAT.left, y, plot, HEAT.row - 1);
      for (let c = 0; c < n; c++) {
        if (Number.isNaN(mean[c])) continue;
        context.fillStyle = Number.isFinite(mean[c]) ? color(at(mean[c])) : ALARM;
        const x = Math.round(HEAT.left + c * perColumn);
        context.fillRect(x, y, Math.max(1, Math.round(HEAT.left + (c + 1) * perColumn) - x), HEAT.row - 1);
      }
      const stretches = restingStretches(statistic, block, mean);
      for (const [from, to] of stretches) hatch(context, HEAT.left + from * perColumn, y, (to - from) * perColumn, HEAT.row - 1);
      const whole = stretches.length === 1 && stretches[0][1] - stretches[0][0] === n;
      const chosen = block === blockOf(statistic);
      context.font = chosen ? `bold ${FONT}` : FONT;
      write(context, block.name + (whole ? " · frozen" : ""), HEAT.left - 8, y + HEAT.row / 2, { align: "right", most: HEAT.left - 12, color: whole ? QUIET : INK });
      context.font = FONT;
    });
    epochTicks(context, axis, HEAT.left, HEAT.top, bottom, perColumn);
    for (const [epoch, step, index] of data.nonfinite) {
      if (axis.epochs.length === n && axis.perColumn === 1 && statistic.epochMeans === null) break; // measured once an epoch
      const x = HEAT.left + (position(axis, epoch, step) + 0.5) * perColumn;
      context.fillStyle = ALARM;
      context.beginPath(); context.moveTo(x - 5, 1); context.lineTo(x + 5, 1); context.lineTo(x, 11); context.fill();
      const r = rows.findIndex((block) => block.index === index);
      if (r >= 0) context.fillRect(x - Math.max(1.5, perColumn / 2), HEAT.top + r * HEAT.row, Math.max(3, perColumn), HEAT.row - 1);
    }
    context.strokeStyle = INK;
    context.lineWidth = 2;
    context.strokeRect(HEAT.left - 1, HEAT.top + rows.indexOf(blockOf(statistic)) * HEAT.row - 1, plot + 2, HEAT.row + 1);
    const box = element("heat").parentElement, y = HEAT.top + rows.indexOf(blockOf(statistic)) * HEAT.row; // of many blocks
    if (y < box.scrollTop || y + HEAT.row > box.scrollTop + box.clientHeight) box.scrollTop = y - box.clientHeight / 2;
    drawColorBar(context, width - HEAT.right + 16, HEAT.top, Math.max(bottom - HEAT.top, 60), at, ticks, color);
  }

  function drawColorBar(context, x, top, height, at, ticks, color) {
    if (!ticks.length) return;
    height = Math.min(height, 260);
    for (let i = 0; i < height; i++) { context.fillStyle = color(1 - i / height); context.fillRect(x, top + i, 14, 1.5); }
    const words = texts(ticks, 3);
    ticks.forEach((tick, i) => {
      const y = top + (1 - at(tick)) * height;
      context.fillStyle = INK;
      context.fillRect(x + 14, y - 0.5, 4, 1);
      write(context, words[i], x + 21, Math.min(Math.max(y, top + 4), top + height - 2), { most: 54 });
    });
  }

  const CURVE_HEIGHT = 260;
  const LARGE = { left: 78, right: 16, top: 16, bottom: 40 };
  const SMALL = { left: 60, right: 4, top: 9, bottom: 6 };

  function drawCurve(canvas, statistic, block, height, margins, isLarge) {
    const [context, width] = prepare(canvas, height);
    const axis = axisOf(statistic), n = axis.firstEpoch.length, plot = width - margins.left - margins.right;
    const top = margins.top, bottom = height - margins.bottom, perColumn = plot / n;
    const mean = row(statistic, "mean", block), low = row(statistic, "low", block), high = row(statistic, "high", block);
    const found = range([mean, low, high]);
    const { at, ticks } = scale(found, isLog(statistic) && canBeLog(found));
    const x = (c) => margins.left + (c + 0.5) * perColumn, y = (value) => bottom - at(value) * (bottom - top);
    const shown = isLarge ? ticks : ticks.length > 1 ? [ticks[0], ticks[ticks.length - 1]] : ticks;
    const words = texts(shown, isLarge ? 4 : 3);
    shown.forEach((tick, i) => {
      context.fillStyle = LINE;
      context.fillRect(margins.left, y(tick), plot, 1);
      write(context, words[i], margins.left - 6, y(tick), { align: "right", color: QUIET, most: margins.left - 8 });
    });
    const stretches = restingStretches(statistic, block, mean);
    for (const [from, to] of stretches) {
      hatch(context, margins.left + from * perColumn, top, (to - from) * perColumn, bottom - top);
      if ((to - from) * perColumn > 60) {
        const middle = margins.left + ((from + to) / 2) * perColumn;
        context.fillStyle = "#fff";
        context.fillRect(middle - 26, (top + bottom) / 2 - 9, 52, 18);
        write(context, "frozen", middle, (top + bottom) / 2, { align: "center" });
      }
    }
    if (low !== null) {
      context.fillStyle = "rgba(0,114,178,.22)";
      for (let c = 0; c < n; c++) if (Number.isFinite(low[c])) context.fillRect(margins.left + c * perColumn, y(high[c]), Math.max(1, perColumn), Math.max(1, y(low[c]) - y(high[c])));
    }
    context.strokeStyle = context.fillStyle = CURVE;
    context.lineWidth = isLarge ? 1.5 : 1.2;
    context.beginPath();
    let drawn = false;
    for (let c = 0; c < n; c++) {
      if (!Number.isFinite(mean[c])) { drawn = false; continue; }
      if (drawn) context.lineTo(x(c), y(mean[c])); else context.moveTo(x(c), y(mean[c]));
      drawn = true;
    }
    context.stroke();
    if (n <= 60) for (let c = 0; c < n; c++) if (Number.isFinite(mean[c])) { context.beginPath(); context.arc(x(c), y(mean[c]), isLarge ? 2.5 : 1.5, 0, 7); context.fill(); }
    const means = row(statistic, "epochMeans", block);
    if (means !== null) {
      context.strokeStyle = MEAN;
      context.lineWidth = isLarge ? 2.5 : 1.5;
      context.beginPath();
      means.forEach((value, i) => {
        if (!Number.isFinite(value)) return;
        context.moveTo(margins.left + start(axis, i) * perColumn, y(value));
        context.lineTo(margins.left + end(axis, i) * perColumn, y(value));
      });
      context.stroke();
    }
    const nothing = mean.some((value) => !Number.isNaN(value)) ? "not finite" : "not measured";
    if (!stretches.length && !mean.some(Number.isFinite)) write(context, nothing, margins.left + plot / 2, (top + bottom) / 2, { align: "center", color: QUIET });
    for (const [epoch, step] of statistic.epochMeans === null ? [] : data.nonfinite) {
      context.fillStyle = ALARM;
      context.fillRect(margins.left + (position(axis, epoch, step) + 0.5) * perColumn - 1, top, isLarge ? 2 : 1, bottom - top);
    }
    context.fillStyle = "#9a9a9a";
    context.fillRect(margins.left, bottom, plot, 1);
    if (!isLarge) return;
    epochTicks(context, axis, margins.left, null, bottom, perColumn);
  }

  const nameOf = (kind) => kind.replace("ema_", "averaged ");

  function drawHistogram(canvas, kind) {
    const found = data.histograms.kinds[kind], epochs = data.histograms.epochs, block = blocks[state.block];
    const place = data.histograms.blocks.indexOf(block.index), nBlocks = data.histograms.blocks.length;
    const stored = 2 * (found.highest - found.lowest) + 1, height = 320;
    found.decoded ??= decode(found.shares);
    const all = place < 0 ? [] : epochs.map((_, e) => found.decoded.subarray((e * nBlocks + place) * stored, (e * nBlocks + place + 1) * stored));
    const { ridges, lowest, highest } = crop(all, found.lowest);
    const [context, width] = prepare(canvas, height);
    const nBins = 2 * (highest - lowest) + 1;
    const left = 44, top = 90, bottom = height - 44, plot = width - left - 10, perBin = plot / nBins;
    const most = Math.max(0, ...ridges.map((ridge) => Math.max(...ridge)));
    write(context, nameOf(kind), left, 10);
    if (!(most > 0)) {
      const rests = [...(frozen.get(block.index) ?? [])].length > 0;
      write(context, rests ? `frozen: no ${nameOf(kind)} were collected` : `no ${nameOf(kind)} in this block`, left + plot / 2, height / 2, { align: "center", color: QUIET });
      return;
    }
    const n = ridges.length, gap = (bottom - top) / Math.max(1, n), tall = Math.min(gap * 2.6, bottom - top + 50, gap + top - 30);
    ridges.forEach((ridge, e) => {
      const base = n === 1 ? bottom : top + (bottom - top) * ((e + 1) / n), share = n === 1 ? 1 : e / (n - 1);
      context.beginPath();
      context.moveTo(left, base);
      ridge.forEach((value, bin) => context.lineTo(left + (bin + 0.5) * perBin, base - (value / most) * tall));
      context.lineTo(left + plot, base);
      context.closePath();
      context.fillStyle = `hsla(202, 100%, ${78 - 48 * share}%, .85)`;
      context.fill();
      context.strokeStyle = `hsl(202, 100%, ${62 - 40 * share}%)`;
      context.lineWidth = 1;
      context.stroke();
      write(context, String(epochs[e]), left - 6, base - 5, { align: "right", color: QUIET });
    });
    write(context, "epoch", left - 6, top + (n === 1 ? bottom - top : gap) - 20, { align: "right", color: QUIET });
    const half = highest - lowest, stride = Math.max(1, Math.ceil(half / 4));
    const tick = (bin, words) => { context.fillStyle = "#9a9a9a"; const x = left + (bin + 0.5) * perBin; context.fillRect(x, bottom, 1, 5); write(context, words, x, bottom + 14, { align: "center" }); };
    tick(half, "0");
    for (let power = highest; power > lowest + Math.floor(stride / 2); power -= stride) {
      tick(half + power - lowest, `2${raised(power)}`);
      tick(half - power + lowest, `−2${raised(power)}`);
    }
    const size = found.sizes[n - 1][place];
    write(context, `${size.toLocaleString("en")} values; in the middle: below 2${raised(lowest + 1)}`, left + plot / 2, bottom + 32, { align: "center", color: QUIET });
  }

  /** The powers of two that hold more than 0.2 % of this block's values; what is smaller goes to the middle. */
  function crop(all, lowest) {
    const reach = all.length ? (all[0].length - 1) / 2 : 0;
    const needed = [];
    for (let i = 1; i <= reach; i++) if (all.some((ridge) => ridge[reach - i] > 0.002 || ridge[reach + i] > 0.002)) needed.push(i);
    if (!needed.length) return { ridges: all, lowest, highest: lowest + reach };
    const from = needed[0] - 1, to = Math.min(reach, needed[needed.length - 1] + 1);
    const ridges = all.map((ridge) => {
      const middle = ridge.slice(reach - from, reach + from + 1).reduce((a, b) => a + b, 0);
      return [...ridge.slice(reach - to, reach - from), middle, ...ridge.slice(reach + from + 1, reach + to + 1)];
    });
    return { ridges, lowest: lowest + from, highest: lowest + to };
  }

  const raised = (power) => String(power).replace(/[-0-9]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);

  // ---------------------------------------------------------------- the page

  function describe() {
    const statistic = data.statistics[state.statistic], axis = axisOf(statistic), block = blockOf(statistic);
    const found = rangeOf(statistic), log = isLog(statistic);
    element("heat-heading").textContent = `${label(statistic)}, by block and step`;
    const notes = [axis.perColumn > 1
      ? `${axis.nSteps.toLocaleString("en")} sampled steps; each column gathers ${axis.perColumn} of them and shows their mean.`
      : axis.nSteps === 1 ? "One sampled step." : `${axis.nSteps.toLocaleString("en")} sampled steps, one column each.`];
    if (log) notes.push("Logarithmic colours" + (found.low <= 0 ? "; zero has the colour of the smallest positive value." : "."));
    notes.push("Hatched: frozen. Grey: not measured." + (data.nonfinite.length ? " Red: not finite." : ""));
    element("heat-note").textContent = notes.join(" ");
    element("curve-heading").textContent = `${block.name}: ${label(statistic)}`;
    element("curve-note").textContent =
      (axis.perColumn > 1 ? `Blue: mean of ${axis.perColumn} steps, band from the smallest to the largest. ` : "Blue: each sampled step. ") +
      (statistic.epochMeans !== null ? "Orange: the epoch's mean over its steps with finite gradients." : "Measured once an epoch.") +
      (data.nonfinite.length && statistic.epochMeans !== null ? " Red: a step with gradients that are not finite." : "");
    element("log").checked = log;
    element("log").disabled = !canBeLog(found);
    element("statistic").value = String(state.statistic);
    element("block").value = String(state.block);
    element("heat").setAttribute("aria-label", `${label(statistic)} by block and step; block ${block.name} is chosen.`);
    element("curve").setAttribute("aria-label", `${label(statistic)} of ${block.name} by step.`);
    readOut();
  }

  function readOut() {
    const statistic = data.statistics[state.statistic], axis = axisOf(statistic), block = blockOf(statistic);
    if (state.column === null) { element("readout").textContent = `${block.name}. Point at a step to read its value.`; return; }
    const value = row(statistic, "mean", block)[state.column], low = row(statistic, "low", block), high = row(statistic, "high", block);
    const rests = Number.isNaN(value) && isFrozen(block, axis.firstEpoch[state.column]);
    const words = rests ? "frozen" : Number.isNaN(value) ? "not measured" : text(value);
    const band = low === null || !Number.isFinite(low[state.column]) ? "" : ` (${text(low[state.column])} to ${text(high[state.column])})`;
    element("readout").textContent = `${block.name}, ${span(axis, state.column)}: ${words}${band}`;
  }

  function fillMeans() {
    const statistic = data.statistics[state.statistic], block = blockOf(statistic), axis = axisOf(statistic);
    const means = row(statistic, statistic.epochMeans === null ? "mean" : "epochMeans", block);
    const lines = axis.epochs.map((epoch, i) => [String(epoch), Number.isNaN(means[i]) && isFrozen(block, epoch) ? "frozen" : text(means[i])]);
    element("means").replaceChildren(...[["epoch", label(statistic)], ...lines].map((cells, i) => {
      const line = document.createElement("tr");
      line.append(...cells.map((words) => { const cell = document.createElement(i ? "td" : "th"); cell.textContent = words; return cell; }));
      return line;
    }));
  }

  function drawBlock() {
    const statistic = data.statistics[state.statistic];
    drawCurve(element("curve"), statistic, blockOf(statistic), CURVE_HEIGHT, LARGE, true);
    smalls.forEach(({ button, canvas }, i) => {
      button.setAttribute("aria-pressed", String(i === state.statistic));
      const other = data.statistics[i];
      drawCurve(canvas, other, blockOf(other), 74, SMALL, false);
    });
    const name = blocks.length ? blocks[state.block].name : "";
    element("histogram-heading").textContent = `${name}: distributions over the epochs`;
    element("smalls-heading").textContent = `${name}: every statistic`;
    histograms.forEach(({ canvas, kind }) => drawHistogram(canvas, kind));
  }

  function draw() { describe(); drawHeat(); drawBlock(); fillMeans(); placeCursors(); }

  /** Elements of their own: redrawing the canvases at every move of the pointer takes too long with 250 blocks. */
  function placeCursors() {
    const statistic = data.statistics[state.statistic], n = axisOf(statistic).firstEpoch.length;
    const place = (name, margins, height, width) => {
      const cursor = element(`${name}-cursor`), perColumn = (element(name).clientWidth - margins.left - margins.right) / n;
      cursor.hidden = state.column === null;
      const left = margins.left + (state.column + (width ? 0.5 : 0)) * perColumn;
      Object.assign(cursor.style, { left: `${left}px`, top: `${margins.top}px`, width: `${width || Math.max(perColumn, 2)}px`, height: `${height}px` });
    };
    place("heat", HEAT, HEAT.row * rowsOf(statistic).length, 0);
    place("curve", LARGE, CURVE_HEIGHT - LARGE.top - LARGE.bottom, 1);
  }

  function choose(change) {
    const before = data.statistics[state.statistic];
    Object.assign(state, change);
    const now = data.statistics[state.statistic];
    if (axisOf(before) !== axisOf(now)) state.column = null;
    draw();
  }

  function point(column) {
    if (column === state.column) return;
    state.column = column;
    readOut();
    placeCursors();
  }

  function columnAt(event, margins) {
    const box = event.currentTarget.getBoundingClientRect(), n = axisOf(data.statistics[state.statistic]).firstEpoch.length;
    const share = (event.clientX - box.left - margins.left) / (box.width - margins.left - margins.right);
    return share < 0 || share >= 1 ? null : Math.floor(share * n);
  }

  function rowAt(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const r = Math.floor((event.clientY - box.top - HEAT.top) / HEAT.row);
    return r >= 0 && r < rowsOf(data.statistics[state.statistic]).length ? r : null;
  }

  function onKey(event) {
    const statistic = data.statistics[state.statistic], axis = axisOf(statistic), last = axis.firstEpoch.length - 1;
    const go = (column) => point(Math.min(last, Math.max(0, Math.round(column))));
    const epoch = state.column === null ? -1 : axis.epochs.findLastIndex((_, i) => start(axis, i) <= state.column);
    const moves = {
      ArrowUp: () => choose({ block: Math.max(0, state.block - 1) }),
      ArrowDown: () => choose({ block: Math.min(blocks.length - 1, state.block + 1) }),
      ArrowLeft: () => go((state.column ?? last + 1) - 1),
      ArrowRight: () => go((state.column ?? -1) + 1),
      PageUp: () => go(start(axis, Math.max(0, epoch - 1))),
      PageDown: () => go(epoch + 1 < axis.epochs.length ? Math.ceil(start(axis, epoch + 1)) : last),
      Home: () => go(0),
      End: () => go(last),
    };
    if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    moves[event.key]();
  }

  function option(words, value) {
    const made = document.createElement("option");
    made.textContent = words;
    made.value = String(value);
    return made;
  }

  function summarise() {
    const whole = blocks.filter((block) => frozen.has(block.index) && data.epochs.every((epoch) => isFrozen(block, epoch)));
    const sentences = [`${data.epochs.length} epoch${data.epochs.length === 1 ? "" : "s"}, ${blocks.length} blocks.`];
    if (whole.length) sentences.push(`Frozen throughout: ${whole.map((block) => block.name).join(", ")}.`);
    element("summary").textContent = sentences.join(" ");
    if (!data.nonfinite.length) return;
    const names = new Map(blocks.map((block) => [block.index, block.name]));
    const shown = data.nonfinite.slice(0, 5).map(([epoch, step, index]) => `epoch ${epoch}, step ${step + 1} in ${names.get(index) ?? "no block"}`);
    const alarm = document.createElement("strong");
    alarm.className = "alarm";
    const n = data.nonfinite.length;
    alarm.textContent = ` Gradients that are not finite at ${n} step${n === 1 ? "" : "s"}: ${shown.join("; ")}${n > 5 ? " …" : ""}.`;
    element("summary").append(alarm);
  }

  function makeSmalls() {
    return data.statistics.map((statistic, i) => {
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      button.className = "small";
      button.type = "button";
      button.append(document.createTextNode(label(statistic)), canvas);
      button.addEventListener("click", () => choose({ statistic: i }));
      element("smalls").append(button);
      return { button, canvas };
    });
  }

  function makeHistograms() {
    const found = data.histograms;
    const drawn = found ? `Height: share of the values in each power of two. ${found.nEpochs > found.epochs.length ? `${found.epochs.length} of ${found.nEpochs} epochs are shown. ` : ""}The first epoch is at the back.` : "No histograms were collected.";
    element("histogram-note").textContent = drawn;
    return Object.keys(found ? found.kinds : {}).map((kind) => {
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Distribution of ${nameOf(kind)} over the epochs`);
      element("histograms").append(canvas);
      return { canvas, kind };
    });
  }

  summarise();
  if (!data.statistics.length) { element("summary").textContent = "No statistics were collected."; return; }
  element("page").hidden = false;
  const groups = new Map();
  data.statistics.forEach((statistic, i) => {
    if (!groups.has(statistic.kind)) {
      const group = document.createElement("optgroup");
      group.label = statistic.kind;
      groups.set(statistic.kind, group);
      element("statistic").append(group);
    }
    groups.get(statistic.kind).append(option(label(statistic), i));
  });
  blocks.forEach((block, i) => element("block").append(option(block.name, i)));
  const smalls = makeSmalls(), histograms = makeHistograms();
  const trains = blocks.findIndex((block) => data.statistics[0].blocks.includes(block.index));
  state.block = Math.max(0, trains);
  element("statistic").addEventListener("change", (event) => choose({ statistic: Number(event.target.value) }));
  element("block").addEventListener("change", (event) => choose({ block: Number(event.target.value) }));
  element("log").addEventListener("change", (event) => { state.logs.set(data.statistics[state.statistic], event.target.checked); draw(); });
  element("heat").addEventListener("pointermove", (event) => point(columnAt(event, HEAT)));
  element("heat").addEventListener("click", (event) => {
    const r = rowAt(event);
    if (r !== null && !isGlobal(data.statistics[state.statistic])) choose({ block: r });
  });
  element("curve").addEventListener("pointermove", (event) => point(columnAt(event, LARGE)));
  element("heat").addEventListener("keydown", onKey);
  element("curve").addEventListener("keydown", onKey);
  let waiting = 0;
  window.addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); });
  draw();
})();
