// node check.js CHROMIUM PAGE.html ...: a JSON line a fault: page, theme, width, and what is wrong with it.
// A page may not break a rule of axe, be wider than the window, cut a formula off, or take longer than a second to load
// from disk.
const fs = require("fs");
const puppeteer = require("puppeteer-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const SECOND = 1000;

async function look(page, file, theme, width) {
  const tell = (what) => console.log(JSON.stringify({ page: file, theme, width, ...what }));
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
  let took = Infinity; // the best of three: a busy machine is not the page's fault
  for (let n = 0; n < 3 && took > SECOND; n++) {
    const start = Date.now();
    await page.goto("file://" + file, { waitUntil: "load" });
    took = Math.min(took, Date.now() - start);
  }
  if (took > SECOND) tell({ fault: "slow", detail: took + " ms" });
  await page.evaluate(() => document.querySelectorAll("details").forEach((each) => (each.open = true)));
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  for (const { id, help, nodes } of violations) tell({ fault: id, detail: help, where: nodes[0].html.slice(0, 200) });
  const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (over > 0) tell({ fault: "wider than the window", detail: over + " px" });
  for (const where of await page.evaluate(cutOff)) tell({ fault: "cut off", detail: "cannot be scrolled to", where });
}

// In the page: formulas that stick out of the nearest box that scrolls, further than it scrolls.
function cutOff() {
  const edge = (each) => each.getBoundingClientRect();
  const scrolling = (each) =>
    !each || getComputedStyle(each).overflowX === "auto" ? each : scrolling(each.parentElement);
  const sticksOut = (formula) => {
    const box = scrolling(formula.parentElement) || document.documentElement;
    const last = edge(box).left - box.scrollLeft + box.scrollWidth;
    return [...formula.querySelectorAll("*")].some((each) => edge(each).right > last + 2);
  };
  return [...document.querySelectorAll("math")].filter(sticksOut).map((formula) => formula.textContent.slice(0, 80));
}

(async () => {
  const [chromium, ...files] = process.argv.slice(2);
  const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });
  const page = await browser.newPage();
  for (const file of files)
    for (const [theme, width] of [["light", 1300], ["dark", 1300], ["light", 390], ["dark", 390]])
      await look(page, file, theme, width);
  await browser.close();
  console.log(JSON.stringify({ looked: files.length }));
})();
