// Makes three figures of the page move. The page is whole without this: pictures, tables and data stand in it already.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("live").textContent);
  const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F"];
  const DASHES = ["solid", "dash", "dashdot", "dot", "longdash", "solid", "solid"];
  const AXES = { bursts: "stretched around bursts", linear: "linear", log: "logarithmic" };
  const REMOVED = ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const redraws = [];

  async function library() {
    const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    if (!window.Plotly) throw new Error("the plotting library did not start");
  }

  function make(tag, parent, properties = {}) {
    const element = Object.assign(document.createElement(tag), properties);
    parent.append(element);
    return element;
  }

  function choice(parent, words, options, value, changed) {
    const label = make("label", parent, { textContent: words });
    const select = make("select", label);
    for (const [key, name] of options) make("option", select, { value: key, textContent: name });
    select.value = value;
    select.addEventListener("change", () => changed(select.value));
    return select;
  }

  const style = () => getComputedStyle(document.documentElement);
  const ink = () => style().getPropertyValue("--ink").trim();
  function short(v, digits = 4) {
    if (v === null || v === undefined) return "–";
    const size = Math.abs(v), plain = Number(v.toPrecision(digits));
    const text = size && (size < 1e-3 || size >= 1e6) ? plain.toExponential() : plain.toString();
    return text.replaceAll("-", "−");
  }

  function layout(extra) {
    const rule = style().getPropertyValue("--rule").trim();
    const axis = { gridcolor: rule, linecolor: rule, zerolinecolor: rule, exponentformat: "power", automargin: true };
    const { xaxis, yaxis, ...rest } = extra;
    return {
      font: { color: ink(), size: 12.5, family: "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif" },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 12, t: 8, b: 46 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: style().getPropertyValue("--quiet").trim(), activecolor: ink() },
      hovermode: "closest", hoverlabel: { namelength: -1 }, dragmode: "zoom", showlegend: true,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11.5 } },
      xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
    };
  }

  // Labels of times, without those that would touch one that matters more.
  function apart(run, width) {
    const first = run.ticks[0], scale = (width - 80) / (run.ticks[run.ticks.length - 1] - first || 1), kept = [];
    const order = run.ticks.map((_, k) => k).sort((a, b) => run.weights[a] - run.weights[b]);
    const names = run.labels.map(() => "");
    for (const k of order) {
      const half = 4 + 3.8 * run.labels[k].length, at = (run.ticks[k] - first) * scale;
      if (kept.every(([other, size]) => Math.abs(other - at) > half + size)) {
        kept.push([at, half]);
        names[k] = run.labels[k];
      }
    }
    return names;
  }

  // The time axis as the wish has it; the stretched one is drawn in its own coordinate and labelled with times.
  function timeAxis(wish, runs, width) {
    if (wish === "bursts") {
      const ticks = runs[0].ticks;
      return { title: { text: "time t, stretched around bursts" }, tickmode: "array", tickangle: 0, tickvals: ticks, ticktext: apart(runs[0], width) };
    }
    return { title: { text: "time t" }, type: wish };
  }
  const times = (path, wish) => (wish === "bursts" ? path.x : path.t);
  const told = (path) => path.t.map((t, i) => [t, path.gradient[i]]);

  function costs(runs, wish) {
    const traces = [];
    runs.forEach((run, r) => {
      run.paths.forEach((path, m) => {
        const faint = run.paths.length > 1;
        const base = { x: times(path, wish), customdata: told(path), mode: "lines", legendgroup: run.name, opacity: faint ? 0.55 : 1 };
        const name = data.runs.length > 1 ? run.name : "training";
        const hover = "t = %{customdata[0]:.6g}<br>%{y:.4g}<br>gradient norm %{customdata[1]:.3g}<extra>" + (faint ? "start " + m : "%{fullData.name}") + "</extra>";
        traces.push({ ...base, y: path.cost, name, showlegend: m === 0, hovertemplate: hover,
          line: { color: COLOURS[(2 * r) % 7], width: faint ? 1 : 2, dash: DASHES[data.runs.length > 1 ? r % 7 : 0] } });
        if (path.test.length && runs.length === 1)
          traces.push({ ...base, y: path.test, name: "test", legendgroup: "test", showlegend: m === 0, hovertemplate: hover,
            line: { color: COLOURS[1], width: faint ? 1 : 2, dash: "dash" } });
      });
    });
    if (runs.length === 1)
      runs[0].stages.forEach((stage, k) => traces.push({
        x: wish === "bursts" ? stage.x : stage.t, y: [stage.level, stage.level], mode: "lines", legendgroup: "theory", showlegend: k === 0,
        name: stage.exact ? "theory: least cost of that rank" : "at the critical point",
        line: { color: ink(), width: 1.2, dash: stage.exact ? "dash" : "dot" },
        hovertemplate: "rank " + stage.rank + ": %{y:.6g}<extra></extra>",
      }));
    return traces;
  }

  function modes(runs, wish) {
    const traces = [], run = runs[0];
    run.paths.forEach((path, m) => path.s.forEach((values, i) => {
      const learned = i < run.rank;
      traces.push({
        x: times(path, wish), y: values, customdata: told(path), mode: "lines", name: learned ? "s<sub>" + (i + 1) + "</sub>" : "not learned",
        legendgroup: learned ? "s" + i : "rest", showlegend: m === 0 && i <= run.rank, opacity: run.paths.length > 1 ? 0.6 : 1,
        line: { color: learned ? COLOURS[i % 7] : "#999999", width: learned && run.paths.length === 1 ? 2 : 1, dash: learned ? DASHES[i % 7] : "solid" },
        hovertemplate: "t = %{customdata[0]:.6g}<br>s<sub>" + (i + 1) + "</sub> = %{y:.5g}<extra>" + (run.paths.length > 1 ? "start " + m : "") + "</extra>",
      });
    }));
    return traces;
  }

  // A figure over time: its axes can be chosen, its decades zoomed; the slider of the path moves a line through it.
  function overTime(figure, kind) {
    const one = kind !== "loss", live = make("div", figure, { className: "live" }), bar = make("div", live, { className: "controls" });
    figure.insertBefore(live, figure.querySelector(".still"));
    const all = data.runs, together = !one && all.length > 1;
    let index = 0, wish, scale = "log";
    const shown = () => (one || !together ? [all[index]] : all);
    const stretched = () => !together && shown()[0].ticks.length > 0;
    wish = together ? (Math.max(...all.map((r) => r.end)) > 30 * Math.min(...all.map((r) => r.end)) ? "log" : "linear") : all[0].axis;
    if (one && all.length > 1) choice(bar, "run", all.map((r, k) => [k, r.name]), 0, (v) => { index = Number(v); fit(); draw(); });
    const options = Object.entries(AXES).filter(([key]) => key !== "bursts" || all.some((r) => r.ticks.length && !together));
    const select = choice(bar, "time", options, wish, (v) => { wish = v; fit(); draw(); });
    choice(bar, one ? "values" : "cost", [["log", "logarithmic"], ["linear", "linear"]], scale, (v) => { scale = v; draw(); });
    const chart = make("div", live, { className: "chart" });
    function fit() { if (wish === "bursts" && !stretched()) wish = select.value = "linear"; }
    function draw() {
      const runs = shown(), traces = one ? modes(runs, wish) : costs(runs, wish);
      const yaxis = { title: { text: one ? "singular values of A" : "cost C(A)" }, type: scale };
      const shapes = one ? runs[0].planted.map((v) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: v, y1: v, line: { color: ink(), width: 1, dash: "dash" } })) : [];
      if (!together && moment !== null && index === momentRun && runs[0].paths[0].t[moment] !== undefined) {
        const x = times(runs[0].paths[0], wish)[moment];
        if (wish !== "log" || x > 0) shapes.push({ type: "line", yref: "paper", y0: 0, y1: 1, x0: x, x1: x, line: { color: ink(), width: 1 } });
      }
      Plotly.react(chart, traces, layout({ xaxis: timeAxis(wish, runs, chart.clientWidth), yaxis, shapes, uirevision: wish + scale + index }),
        { responsive: true, displaylogo: false, modeBarButtonsToRemove: REMOVED });
    }
    fit();
    draw();
    window.addEventListener("resize", draw);
    redraws.push(draw);
    return chart;
  }

  let moment = null, momentRun = 0;

  function pathFigure(figure) {
    const live = make("div", figure, { className: "live" }), bar = make("div", live, { className: "controls" });
    figure.insertBefore(live, figure.querySelector(".still"));
    const all = data.runs;
    if (all.length > 1) choice(bar, "run", all.map((r, k) => [k, r.name]), 0, (v) => { momentRun = Number(v); start(); });
    const label = make("label", bar, { className: "slide", textContent: "along the path" });
    const slider = make("input", label, { type: "range", min: 0, step: 1 });
    const chart = make("div", live, { className: "chart" });
    const readout = make("p", live, { className: "readout" });
    readout.setAttribute("aria-live", "polite");
    const box = make("div", live, { className: "matrix" }), canvas = make("canvas", box), words = make("span", box);
    function start() {
      const path = all[momentRun].paths[0];
      slider.max = path.t.length - 1;
      moment = path.visits.length ? path.visits[Math.min(1, path.visits.length - 1)] : path.t.length - 1;
      slider.value = moment;
      draw();
      tell();
    }
    function draw() {
      const run = all[momentRun], traces = [];
      run.paths.forEach((path, m) => {
        traces.push({ x: path.along, y: path.across, customdata: told(path), mode: "lines", showlegend: false, opacity: m ? 0.5 : 1,
          line: { color: COLOURS[0], width: m ? 1 : 2.4 }, hovertemplate: "t = %{customdata[0]:.6g}<extra>" + (run.paths.length > 1 ? "start " + m : "") + "</extra>" });
      });
      const path = run.paths[0];
      traces.push({ x: path.visits.map((i) => path.along[i]), y: path.visits.map((i) => path.across[i]), mode: "markers+text", showlegend: false,
        text: path.ranks.map((r) => "rank " + r), textposition: path.ranks.map((r, k) => (k === 0 ? "middle left" : k === path.ranks.length - 1 ? "middle right" : "top center")), cliponaxis: false,
        marker: { size: 11, color: "rgba(0,0,0,0)", line: { color: ink(), width: 1.5 } }, hovertemplate: "%{text}<extra></extra>" });
      traces.push({ x: [path.along[moment]], y: [path.across[moment]], mode: "markers", showlegend: false, hoverinfo: "skip",
        marker: { size: 12, color: COLOURS[4] } });
      Plotly.react(chart, traces, layout({ xaxis: { title: { text: "along: first → last visit" }, range: wide(run.paths) },
        yaxis: { title: { text: "across" }, scaleanchor: "x" }, uirevision: momentRun, margin: { l: 56, r: 24, t: 22, b: 46 } }),
        { responsive: true, displaylogo: false, modeBarButtonsToRemove: REMOVED });
    }
    function wide(paths) {
      const all = paths.flatMap((path) => path.along), low = Math.min(...all), high = Math.max(...all);
      return [low - 0.18 * (high - low), high + 0.18 * (high - low)];
    }
    function tell() {
      const run = all[momentRun], path = run.paths[0], s = path.s.map((values) => short(values[moment], 3));
      readout.textContent = "t = " + short(path.t[moment], 6) + " · cost " + short(path.cost[moment]) +
        (path.test.length ? " · test " + short(path.test[moment]) : "") + " · singular values " + s.slice(0, Math.max(run.rank, 3)).join(", ") + (s.length > 3 ? ", …" : "");
      matrix(run, path.t[moment]);
      slider.setAttribute("aria-valuetext", "t = " + short(path.t[moment], 6));
    }
    // The matrix A itself, blue where negative and orange where positive, on the scale of the whole path.
    function matrix(run, time) {
      const frames = run.frames;
      box.hidden = !frames.A;
      if (!frames.A) return;
      let k = 0;
      frames.t.forEach((t, i) => { if (Math.abs(t - time) < Math.abs(frames.t[k] - time)) k = i; });
      const rows = frames.A[k], top = Math.max(...frames.A.flat(2).map(Math.abs)) || 1;
      canvas.width = rows[0].length;
      canvas.height = rows.length;
      const paint = canvas.getContext("2d");
      rows.forEach((row, i) => row.forEach((v, j) => {
        const share = Math.round(100 * Math.sqrt(Math.abs(v) / top));
        paint.fillStyle = "color-mix(in srgb, " + (v < 0 ? "#0072B2 " : "#E66100 ") + share + "%, " + (dark.matches ? "#14171b" : "#ffffff") + ")";
        paint.fillRect(j, i, 1, 1);
      }));
      words.textContent = "A at t = " + short(frames.t[k], 5) + " (" + rows.length + "×" + rows[0].length + "): orange positive, blue negative, the strongest ±" + short(top, 3) + ".";
    }
    slider.addEventListener("input", () => { moment = Number(slider.value); tell(); for (const redraw of redraws) redraw(); });
    redraws.push(draw);
    start();
    return chart;
  }

  const MAKERS = { loss: overTime, "singular-values": overTime, path: pathFigure };
  const ready = library().then(() => {
    const charts = {};
    for (const figure of [...document.querySelectorAll("figure[data-live]")].reverse()) {
      const kind = figure.dataset.live;
      charts[kind] = MAKERS[kind](figure, kind);
      figure.classList.add("lively");
    }
    dark.addEventListener("change", () => { for (const redraw of redraws) redraw(); });
    return charts;
  });
  ready.catch((error) => console.error("The figures do not move: " + error.message));
  window.dlnphase = { ready };
})();
