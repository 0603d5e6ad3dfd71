// Point clouds in a report: turned, moved, zoomed and coloured. One figure.cloud holds one cloud as
// JSON; everything else is built here. Nothing is fetched.
//
// The page's fragment sets what a link should show: #view=error chooses the colouring whose title
// begins so, #renderer=2d draws without WebGL.
"use strict";
(() => {
  const GROUND = [20, 23, 31]; // the class colours are made for a dark ground
  const FOCAL = 1.8; // of an eye that sees 58 degrees from top to bottom
  const NEAREST = 0.02; // of the distance to the middle; what is nearer is not drawn
  const FARTHEST = 50;

  const VERTEX = `
    attribute vec3 place; attribute vec4 paint;
    uniform mat3 axes; uniform vec3 middle; uniform vec2 focal;
    uniform float distance, dot_size, cut;
    varying vec3 color; varying float rim;
    void main() {
      vec3 seen = axes * (place - middle);
      float depth = distance - seen.z, near = ${NEAREST} * distance, far = ${FARTHEST}.0 * distance;
      color = paint.rgb;
      gl_Position = vec4(focal * seen.xy, ((far + near) * depth - 2.0 * far * near) / (far - near), depth);
      if (paint.a < 0.5 || place.z > cut) gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
      gl_PointSize = clamp(dot_size / depth, 2.0, 40.0);
      rim = 0.4 * clamp((gl_PointSize - 3.0) / 5.0, 0.0, 1.0); // small ones would turn dark
    }`;
  const FRAGMENT = `
    precision mediump float;
    varying vec3 color; varying float rim;
    void main() {
      float away = length(gl_PointCoord - 0.5);
      if (away > 0.5 && rim > 0.0) discard;
      gl_FragColor = vec4(color * (1.0 - rim * smoothstep(0.25, 0.5, away)), 1.0);
    }`;

  const settings = () => new URLSearchParams(location.hash.slice(1));
  const unpack = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key in made) made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  /* What there is to see: places, and colourings by title. */
  function decode(data) {
    const steps = new Uint16Array(unpack(data.xyz).buffer);
    const xyz = Float32Array.from(steps, (step, i) => data.low[i % 3] + step * data.step);
    const layers = data.layers.map((layer) => {
      const raw = unpack(layer.data);
      const values = layer.wide ? new Uint16Array(raw.buffer) : raw;
      return { ...layer, values, ramp: layer.ramp && unpack(layer.ramp) };
    });
    return { xyz, layers, size: xyz.length / 3 };
  }

  /* Red, green, blue and whether it is shown, of every point. */
  function paint(layer, size, hidden) {
    const paints = new Uint8Array(4 * size);
    for (let i = 0; i < size; i++) {
      const value = layer.values[i];
      let [from, at] = [layer.values, 3 * i];
      if (layer.kind === "classes") [from, at] = [layer.colors[value], 0];
      if (layer.kind === "numbers") [from, at] = [layer.ramp, 3 * value];
      paints[4 * i] = from[at];
      paints[4 * i + 1] = from[at + 1];
      paints[4 * i + 2] = from[at + 2];
      paints[4 * i + 3] = layer.kind === "classes" && hidden.has(layer.names[value]) ? 0 : 255;
    }
    return paints;
  }

  /* Right, up and toward the eye, as rows. */
  function axesOf({ azimuth, elevation }) {
    const [sa, ca, se, ce] = [Math.sin(azimuth), Math.cos(azimuth), Math.sin(elevation), Math.cos(elevation)];
    return [-sa, ca, 0, -se * ca, -se * sa, ce, ce * ca, ce * sa, se];
  }

  /* Calls back with the index of each point before the eye, its pixel and its depth. */
  function project(xyz, paints, eye, width, height, visit) {
    const [ax, ay, az, bx, by, bz, cx, cy, cz] = axesOf(eye);
    const [mx, my, mz] = eye.middle;
    const scale = (FOCAL * height) / 2;
    for (let i = 0, k = 0; k < xyz.length; i++, k += 3) {
      if (!paints[4 * i + 3] || xyz[k + 2] > eye.cut) continue;
      const [x, y, z] = [xyz[k] - mx, xyz[k + 1] - my, xyz[k + 2] - mz];
      const depth = eye.distance - (cx * x + cy * y + cz * z);
      if (depth < NEAREST * eye.distance) continue;
      const right = (ax * x + ay * y + az * z) * (scale / depth);
      const up = (bx * x + by * y + bz * z) * (scale / depth);
      visit(i, width / 2 + right, height / 2 - up, depth);
    }
  }

  /* Draws by WebGL; throws where there is none. */
  class GraphicsCard {
    constructor(canvas, xyz) {
      const gl = canvas.getContext("webgl", { antialias: false });
      if (!gl) throw new Error("no WebGL");
      this.gl = gl;
      this.name = "WebGL";
      this.size = xyz.length / 3;
      const program = gl.createProgram();
      for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
        const shader = gl.createShader(kind);
        gl.shaderSource(shader, source);
        gl.compileShader(shader);
        gl.attachShader(program, shader);
      }
      gl.linkProgram(program);
      if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
      gl.useProgram(program);
      gl.enable(gl.DEPTH_TEST);
      this.uniform = (name) => gl.getUniformLocation(program, name);
      this.buffer("place", program, 3, gl.FLOAT, xyz);
      this.paints = this.buffer("paint", program, 4, gl.UNSIGNED_BYTE, new Uint8Array(4 * this.size));
    }

    buffer(name, program, width, type, values) {
      const gl = this.gl;
      const made = gl.createBuffer();
      const at = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, made);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, width, type, type === gl.UNSIGNED_BYTE, 0, 0);
      return made;
    }

    setPaints(paints) {
      this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.paints);
      this.gl.bufferData(this.gl.ARRAY_BUFFER, paints, this.gl.STATIC_DRAW);
    }

    draw(eye, width, height) {
      const gl = this.gl;
      const [a, b, c, d, e, f, g, h, i] = axesOf(eye);
      gl.viewport(0, 0, width, height);
      gl.clearColor(GROUND[0] / 255, GROUND[1] / 255, GROUND[2] / 255, 1);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.uniformMatrix3fv(this.uniform("axes"), false, [a, d, g, b, e, h, c, f, i]);
      gl.uniform3fv(this.uniform("middle"), eye.middle);
      gl.uniform2f(this.uniform("focal"), (FOCAL * height) / width, FOCAL);
      gl.uniform1f(this.uniform("distance"), eye.distance);
      gl.uniform1f(this.uniform("dot_size"), (eye.dot * FOCAL * height) / 2);
      gl.uniform1f(this.uniform("cut"), eye.cut);
      gl.drawArrays(gl.POINTS, 0, this.size);
    }
  }

  /* Draws the same by hand, on any canvas. */
  class PlainCanvas {
    constructor(canvas, xyz) {
      this.context = canvas.getContext("2d");
      this.name = "2D canvas";
      this.xyz = xyz;
    }

    setPaints(paints) {
      this.paints = paints;
      this.words = new Uint32Array(paints.buffer);
    }

    draw(eye, width, height) {
      const image = this.context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      const nearest = new Float32Array(width * height).fill(Infinity);
      pixels.fill(new Uint32Array(new Uint8Array([...GROUND, 255]).buffer)[0]);
      const scale = (eye.dot * FOCAL * height) / 2;
      project(this.xyz, this.paints, eye, width, height, (i, x, y, depth) => {
        const dot = Math.min(Math.max(Math.round(scale / depth), 2), 40);
        const [left, top] = [Math.round(x - dot / 2), Math.round(y - dot / 2)];
        for (let row = Math.max(top, 0); row < Math.min(top + dot, height); row++)
          for (let column = Math.max(left, 0); column < Math.min(left + dot, width); column++)
            if (depth < nearest[row * width + column]) {
              nearest[row * width + column] = depth;
              pixels[row * width + column] = this.words[i];
            }
      });
      this.context.putImageData(image, 0, 0);
    }
  }

  class CloudView {
    constructor(figure) {
      const data = JSON.parse(figure.querySelector("script").textContent);
      this.cloud = decode(data);
      this.home = data.view;
      this.hidden = new Set();
      this.choice = element("select", { ariaLabel: "colouring" });
      for (const layer of this.cloud.layers) this.choice.append(element("option", {}, layer.title));
      this.choice.onchange = () => this.setLayer(this.choice.value);
      const range = { type: "range", min: 0, max: 1, step: 0.005 };
      this.cut = element("input", { ...range, ariaLabel: "shown up to this height" });
      this.cut.oninput = () => this.look({ cut: this.heightAt(Number(this.cut.value)) });
      this.dot = element("input", { ...range, min: -2, max: 2, step: 0.1, ariaLabel: "size of points" });
      this.dot.oninput = () => this.look({ dot: this.home.dot * 2 ** Number(this.dot.value) });
      const home = element("button", { type: "button" }, "reset");
      home.onclick = () => this.reset();
      this.said = element("output", { ariaLive: "off" });
      this.legend = element("div", { className: "legend", role: "group", ariaLabel: "legend" });
      this.stage = element("div", { className: "stage" });
      const bar = element("div", { className: "bar" });
      const labelled = (text, control) => element("label", {}, text, control);
      bar.append(
        labelled("colour ", this.choice), labelled("height ", this.cut), labelled("points ", this.dot), home,
      );
      figure.prepend(bar, this.stage, this.legend);
      this.begin(settings().get("renderer") === "2d");
      new ResizeObserver(() => this.draw()).observe(this.stage);
      this.reset();
      this.follow();
    }

    /* A canvas has one kind of context for life: another renderer needs another canvas. */
    begin(plain) {
      const count = this.cloud.size.toLocaleString("en");
      const help = "arrow keys turn, with shift they move, plus and minus zoom, 0 resets";
      this.canvas = element("canvas", { tabIndex: 0, role: "img", ariaLabel: `${count} points; ${help}` });
      try {
        this.renderer = new (plain ? PlainCanvas : GraphicsCard)(this.canvas, this.cloud.xyz);
      } catch {
        return this.begin(true);
      }
      this.stage.replaceChildren(this.canvas, this.said);
      this.canvas.addEventListener("webglcontextlost", () => {
        this.begin(true);
        this.setLayer(this.layer.title);
      });
      this.listen();
    }

    /* Take what the page's fragment asks for. */
    follow() {
      const wanted = (settings().get("view") || "").toLowerCase();
      const found = this.cloud.layers.find((layer) => layer.title.toLowerCase().startsWith(wanted));
      this.setLayer((found || this.cloud.layers[0]).title);
    }

    heightAt(share) {
      return share >= 1 ? 1e9 : this.home.bottom + share * (this.home.top - this.home.bottom);
    }

    reset() {
      this.cut.value = this.home.shown;
      this.dot.value = 0;
      this.look({ ...this.home, middle: [...this.home.middle], cut: this.heightAt(this.home.shown) });
    }

    look(change) {
      this.eye = { ...this.eye, ...change };
      this.draw();
    }

    setLayer(title) {
      this.layer = this.cloud.layers.find((layer) => layer.title === title);
      this.choice.value = title;
      this.paints = paint(this.layer, this.cloud.size, this.hidden);
      this.renderer.setPaints(this.paints);
      this.explain();
      this.draw();
    }

    hide(names) {
      this.hidden = new Set(names);
      this.setLayer(this.layer.title);
    }

    explain() {
      const { kind, names, colors, note, low, high, ramp } = this.layer;
      this.legend.replaceChildren();
      if (kind === "numbers") {
        const stops = [0, 64, 128, 192, 255].map((k) => `rgb(${ramp.slice(3 * k, 3 * k + 3).join(" ")})`);
        const scale = element("span", { className: "scale" });
        scale.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
        this.legend.append(`${low} `, scale, ` ${high}`);
      }
      if (note) this.legend.append(note);
      for (const [k, name] of (names || []).entries()) {
        const mark = element("span", { className: "mark" });
        mark.style.background = `rgb(${colors[k].join(" ")})`;
        const shown = !this.hidden.has(name);
        const button = element("button", { type: "button", title: "click: show or hide; shift: only this" }, mark, name);
        button.setAttribute("aria-pressed", shown);
        button.onclick = (event) => this.toggle(name, event.shiftKey);
        this.legend.append(button);
      }
      if (this.hidden.size) {
        const all = element("button", { type: "button" }, "show all");
        all.onclick = () => this.hide([]);
        this.legend.append(all);
      }
    }

    toggle(name, only) {
      if (only) return this.hide(this.layer.names.filter((other) => other !== name));
      const kept = [...this.hidden].filter((other) => other !== name);
      this.hide(this.hidden.has(name) ? kept : [...kept, name]);
    }

    /* At most once a frame, and only when something changed. */
    draw() {
      if (this.due) return;
      this.due = true;
      requestAnimationFrame(() => {
        this.due = false;
        const { width, height } = this.stage.getBoundingClientRect();
        const density = Math.min(devicePixelRatio || 1, 2);
        const [columns, rows] = [Math.round(width * density), Math.round(height * density)];
        if (!columns || !rows) return;
        if (this.canvas.width !== columns) this.canvas.width = columns;
        if (this.canvas.height !== rows) this.canvas.height = rows;
        this.renderer.draw(this.eye, columns, rows);
      });
    }

    turn(right, up) {
      const elevation = Math.min(Math.max(this.eye.elevation + up, -1.57), 1.57);
      this.look({ azimuth: this.eye.azimuth - right, elevation });
    }

    /* By shares of the picture's height. */
    move(right, up) {
      const axes = axesOf(this.eye);
      const step = (2 * this.eye.distance) / FOCAL;
      this.look({ middle: this.eye.middle.map((at, k) => at - step * (right * axes[k] + up * axes[3 + k])) });
    }

    zoom(factor) {
      const distance = Math.min(Math.max(this.eye.distance * factor, 0.05), 20 * this.home.distance);
      this.look({ distance });
    }

    listen() {
      const canvas = this.canvas;
      const held = new Map();
      const spread = () => {
        const [a, b] = held.values();
        return b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
      };
      canvas.onpointerdown = (event) => {
        canvas.focus();
        canvas.setPointerCapture(event.pointerId);
        held.set(event.pointerId, { x: event.clientX, y: event.clientY });
      };
      canvas.onpointerup = canvas.onpointercancel = (event) => held.delete(event.pointerId);
      canvas.onpointerleave = () => (this.said.value = "");
      canvas.oncontextmenu = (event) => event.preventDefault();
      canvas.onpointermove = (event) => {
        const before = held.get(event.pointerId);
        if (!before) return this.name(event);
        const [x, y] = [event.clientX - before.x, event.clientY - before.y];
        const wide = spread();
        held.set(event.pointerId, { x: event.clientX, y: event.clientY });
        const height = canvas.clientHeight;
        if (held.size > 1) this.zoom(wide / Math.max(spread(), 1));
        if (held.size > 1 || event.shiftKey || event.buttons > 1) this.move(x / height / held.size, -y / height / held.size);
        else this.turn((3 * x) / height, (3 * y) / height);
      };
      // Only where it was clicked: a wheel over a picture that one passes scrolls the page.
      canvas.addEventListener("wheel", (event) => {
        if (document.activeElement !== canvas) return;
        event.preventDefault();
        this.zoom(Math.exp(Math.sign(event.deltaY) * 0.12));
      }, { passive: false });
      canvas.onkeydown = (event) => this.press(event);
    }

    press(event) {
      const go = event.shiftKey ? (x, y) => this.move(x * 0.5, y * 0.5) : (x, y) => this.turn(x, -y);
      const keys = {
        ArrowLeft: () => go(-0.1, 0), ArrowRight: () => go(0.1, 0),
        ArrowUp: () => go(0, 0.1), ArrowDown: () => go(0, -0.1),
        "+": () => this.zoom(0.85), "=": () => this.zoom(0.85), "-": () => this.zoom(1 / 0.85),
        0: () => this.reset(), Home: () => this.reset(),
      };
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    }

    /* Say what the point under the pointer is. */
    name(event) {
      const box = this.canvas.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      let [found, depth] = [-1, Infinity];
      project(this.cloud.xyz, this.paints, this.eye, box.width, box.height, (i, x, y, far) => {
        if (far < depth && Math.abs(x - px) < 4 && Math.abs(y - py) < 4) [found, depth] = [i, far];
      });
      const known = this.cloud.layers.filter((layer) => layer.kind === "classes");
      this.said.value = found < 0 ? "" : known.map((layer) => `${layer.title}: ${layer.names[layer.values[found]]}`).join(" · ");
    }
  }

  window.pointClouds = [...document.querySelectorAll("figure.cloud")].map((figure) => new CloudView(figure));
  addEventListener("hashchange", () => window.pointClouds.forEach((view) => view.follow()));
})();
