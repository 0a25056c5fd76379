"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // A canvas shows one cell of a sheet: data-sheet is the id of an image, cells are square or not.
  const sheets = new Map();
  const sheetOf = (id) => {
    if (!sheets.has(id)) sheets.set(id, document.getElementById(id));
    return sheets.get(id);
  };
  const cellOf = (sheet, column, row) => {
    const width = sheet.naturalWidth / Number(sheet.dataset.columns);
    const height = sheet.naturalHeight / Number(sheet.dataset.rows);
    return [column * width, row * height, width, height];
  };
  const draw = (canvas, column, row) => {
    const sheet = sheetOf(canvas.dataset.sheet);
    const [x, y, width, height] = cellOf(sheet, column, row);
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").drawImage(sheet, x, y, width, height, 0, 0, width, height);
  };
  const pixels = (sheet, column, row) => {
    const canvas = document.createElement("canvas");
    const [x, y, width, height] = cellOf(sheet, column, row);
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    context.drawImage(sheet, x, y, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  };
  // |shown - original|, four times as bright: black where they are equal.
  const drawError = (canvas, column, row, from) => {
    const sheet = sheetOf(canvas.dataset.sheet);
    const [a, b] = [pixels(sheet, column, row), pixels(sheet, from.column, from.row)];
    for (let i = 0; i < a.data.length; i += 4)
      for (let c = i; c < i + 3; c++) a.data[c] = Math.min(255, 4 * Math.abs(a.data[c] - b.data[c]));
    canvas.width = a.width;
    canvas.height = a.height;
    canvas.getContext("2d").putImageData(a, 0, 0);
  };

  const walk = (section) => {
    const slider = section.querySelector("input[type=range]");
    const shown = section.querySelector("output");
    const errors = section.querySelector("input[type=checkbox]");
    const labels = JSON.parse(section.dataset.labels);
    const update = () => {
      const at = Number(slider.value);
      shown.textContent = labels[at];
      slider.setAttribute("aria-valuetext", labels[at]);
      for (const canvas of all("canvas[data-row]", section)) {
        const row = Number(canvas.dataset.row);
        // The last column of the first row is D(x, 0): the original.
        if (errors && errors.checked) drawError(canvas, at, row, { column: labels.length - 1, row: 0 });
        else draw(canvas, at, row);
      }
    };
    slider.addEventListener("input", update);
    if (errors) errors.addEventListener("change", update);
    update();
  };

  const wipe = (section) => {
    const canvas = section.querySelector("canvas");
    const slider = section.querySelector("input[type=range]");
    const [image, before, after] = all("select", section);
    const context = canvas.getContext("2d");
    const scale = 8;  // the line between both is finer than their pixels
    const update = () => {
      const sheet = sheetOf(image.value);
      const [right, y, width, height] = cellOf(sheet, Number(after.value), 0);
      const [left] = cellOf(sheet, Number(before.value), 0);
      canvas.width = width * scale;
      canvas.height = height * scale;
      context.imageSmoothingEnabled = false;
      context.drawImage(sheet, right, y, width, height, 0, 0, canvas.width, canvas.height);
      const share = Number(slider.value) / 100;
      const cut = Math.round(canvas.width * share);
      if (cut > 0)
        context.drawImage(sheet, left, y, width * share, height, 0, 0, cut, canvas.height);
      context.fillStyle = "#ff3b30";
      context.fillRect(Math.min(cut, canvas.width - 2), 0, Math.max(2, canvas.width / 128), canvas.height);
    };
    for (const control of [slider, image, before, after]) control.addEventListener("input", update);
    update();
  };

  const proofs = () => {
    for (const button of all("button.num"))
      button.addEventListener("click", () => {
        const panel = document.getElementById(button.getAttribute("aria-controls"));
        const open = button.getAttribute("aria-expanded") === "true";
        for (const other of all("button.num[aria-expanded=true]")) other.setAttribute("aria-expanded", "false");
        panel.replaceChildren();
        panel.hidden = open;
        button.setAttribute("aria-expanded", String(!open));
        if (open) return;
        const list = document.createElement("dl");
        for (const [name, value] of JSON.parse(button.dataset.proof)) {
          const [term, told] = [document.createElement("dt"), document.createElement("dd")];
          term.textContent = name;
          told.textContent = value;
          list.append(term, told);
        }
        panel.append(list);
      });
  };

  const copies = () => {
    for (const button of all("button.copy"))
      button.addEventListener("click", async () => {
        const text = document.getElementById(button.dataset.from).textContent;
        let done = false;
        try {
          await navigator.clipboard.writeText(text);
          done = true;
        } catch {
          const area = document.createElement("textarea");
          area.value = text;
          document.body.append(area);
          area.select();
          done = document.execCommand("copy");
          area.remove();
        }
        const label = button.textContent;
        button.textContent = done ? "copied" : "select and copy it below";
        setTimeout(() => (button.textContent = label), 1500);
      });
  };

  const start = () => {
    all("section.walk").forEach(walk);
    all("section.wipe").forEach(wipe);
    proofs();
    copies();
    document.documentElement.dataset.ready = "yes";
  };
  Promise.all(all("img.sheet").map((sheet) => sheet.decode().catch(() => null))).then(start);
})();
