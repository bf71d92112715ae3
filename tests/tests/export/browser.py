"""Opens pages in a headless Chromium as a person would, and prints what it saw as JSON: FOLDER PAGE…

FOLDER, when it is not empty, gets screenshots. The first thing opened is a page that does all that must not be: what sees nothing there
would see nothing anywhere."""

import base64
import json
import pathlib
import sys
import tempfile

from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException, UnexpectedAlertPresentException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

DESKTOP, PHONE = (1280, 800, False), (390, 844, True)
BAD = """<!doctype html><title>bad</title><img src="http://127.0.0.1:9/x"><script>
console.error("an error"); window.ran = ["a script"]; alert("an alert")</script>"""
# Scrolled or not, whole or not: where an element is, and whether the person sees it.
SEEN = """const box = arguments[0].getBoundingClientRect();
const x = Math.min(Math.max(box.left + 5, 1), innerWidth - 2), y = (Math.max(box.top, 0) + Math.min(box.bottom, innerHeight)) / 2;
const there = document.elementFromPoint(x, y);
return {top: box.top, left: box.left, bottom: box.bottom, right: box.right, width: innerWidth, height: innerHeight,
    on_top: there !== null && (arguments[0].contains(there) || there.contains(arguments[0]))}"""


def chromium(profile):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for word in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
                 "disable-component-update", "disable-sync", f"user-data-dir={profile}"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")
    service = webdriver.ChromeService("/usr/bin/chromedriver", env={"PATH": "/usr/bin:/bin", "HOME": profile})
    return webdriver.Chrome(options=options, service=service)


class Browser:
    def __init__(self, driver):
        self.driver = driver

    def size(self, width, height, mobile):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, page):
        self.driver.get("about:blank")
        self.driver.get(page)

    def complaints(self, page):
        """What the console, the network and the page's own scripts have to say since the last call."""
        alert = None
        try:
            alert = self.driver.switch_to.alert.text
            self.driver.switch_to.alert.dismiss()
        except NoAlertPresentException:
            pass
        console = [entry["message"] for entry in self.driver.get_log("browser")]
        requests = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                requests.append(message["params"]["request"]["url"])
        return {
            "alert": alert,
            "console": console,
            "requests": [url for url in requests if url.split("#")[0] not in (page, "about:blank")],
            "ran": self.driver.execute_script("return window.ran ?? null"),
        }

    def seen(self, element):
        return self.driver.execute_script(SEEN, element)

    def click(self, element):
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def at_event(self):
        """The line of an event that has been led to."""
        row = self.driver.switch_to.active_element
        style = "const at = getComputedStyle(arguments[0]); return [at.backgroundColor, at.outlineStyle]"
        plain = self.driver.find_element(By.CSS_SELECTOR, "#event-rows tr:not(:target):not(.on)")
        script = self.driver.execute_script
        return {
            "id": row.get_attribute("id"), "seen": self.seen(row), "text": row.text,
            "marked": script(style, row) != script(style, plain),
        }

    def shot(self, path, whole=False):
        if path is None:
            return
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(data["data"]))


def clicked(browser):
    """Where a click on the first evidence leads, from a filter that hides it too."""
    driver = browser.driver
    links = driver.find_elements(By.CSS_SELECTOR, "section > .evidence a")
    if not links:
        return None
    href = links[0].get_attribute("href")
    filters = driver.find_elements(By.CSS_SELECTOR, "[data-filter=event-rows]")
    for one in filters:
        if one.is_displayed():
            one.send_keys("no event says this")
    browser.click(links[0])
    return {"href": href.split("#")[1], **browser.at_event()}


def keys(browser):
    """The timeline, by keys alone."""
    driver = browser.driver
    if not driver.find_elements(By.CSS_SELECTOR, "#lanes .m"):
        return None
    lanes = driver.find_element(By.ID, "lanes")
    driver.execute_script("arguments[0].focus()", lanes)
    ticks = lambda: [one.text for one in driver.find_elements(By.CSS_SELECTOR, "#lanes .axis text")]
    before = ticks()
    lanes.send_keys("+++")
    zoomed = ticks()
    lanes.send_keys("0", Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    chosen = driver.find_element(By.CSS_SELECTOR, "#lanes .m.on").get_attribute("data-e")
    said = driver.find_element(By.ID, "said-lanes").text
    lanes.send_keys(Keys.ENTER)
    # A new address is acted on a moment later.
    WebDriverWait(driver, 10).until(lambda _: driver.switch_to.active_element.get_attribute("id") == f"e{chosen}")
    return {"zooms": before != zoomed and ticks() == before, "said": said, "chosen": f"e{chosen}", **browser.at_event()}


def without_script(browser, page):
    """What is left of it."""
    driver = browser.driver
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.open(page)
    verdict = browser.seen(driver.find_element(By.CSS_SELECTOR, "#verdict h1"))
    rows = len(driver.find_elements(By.CSS_SELECTOR, "#event-rows tr"))
    links = driver.find_elements(By.CSS_SELECTOR, "section > .evidence a")
    led = None
    if links:
        browser.click(links[0])
        led = browser.seen(driver.find_element(By.CSS_SELECTOR, "#event-rows tr:target"))
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    return {"verdict": verdict, "rows": rows, "led": led}


def look(browser, page, folder):
    driver = browser.driver
    name = page.stem
    shot = lambda kind: folder / f"{name}-{kind}.png" if folder else None
    address = page.as_uri()
    browser.complaints(address)
    told = {}
    for device, size in (("desktop", DESKTOP), ("phone", PHONE)):
        browser.size(*size)
        browser.open(address)
        told[device] = {
            "verdict": browser.seen(driver.find_element(By.CSS_SELECTOR, "#verdict h1")),
            "title": browser.seen(driver.find_element(By.CSS_SELECTOR, "#verdict .title")),
            "wider": driver.execute_script("return document.documentElement.scrollWidth > document.documentElement.clientWidth"),
        }
        browser.shot(shot(device))
        browser.shot(shot(f"{device}-whole"), whole=True)
        told[device]["clicked"] = clicked(browser)
        browser.shot(shot(f"{device}-event"))
        if device == "desktop":
            told["keys"] = keys(browser)
            told["text"] = driver.execute_script("return document.body.textContent")
            told["counts"] = driver.execute_script("""const of = {};
                for (const part of document.querySelectorAll("main > section[id]")) of[part.id] =
                    part.querySelectorAll("tbody tr, .m, .block, .ladder li, figure path.ready, .bin, dd").length;
                return of""")
    browser.size(*DESKTOP)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    browser.open(address)
    told["dark"] = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    browser.shot(shot("dark"), whole=True)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    browser.open(address)
    told["print"] = driver.execute_script("""return {
        cut: [...document.querySelectorAll(".scroll, .tall")].some(at => getComputedStyle(at).overflowY !== "visible"),
        tools: [...document.querySelectorAll(".tools")].some(at => getComputedStyle(at).display !== "none")}""")
    browser.shot(shot("print"))
    if folder:
        pdf = driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
        (folder / f"{name}.pdf").write_bytes(base64.b64decode(pdf["data"]))
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    told["complaints"] = browser.complaints(address)
    told["without_script"] = without_script(browser, address)
    return told


def bad(browser):
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file:
        file.write(BAD)
        file.flush()
        address = pathlib.Path(file.name).as_uri()
        try:
            browser.open(address)
        except UnexpectedAlertPresentException:
            pass
        return browser.complaints(address)


def main():
    folder = pathlib.Path(sys.argv[1]) if sys.argv[1] else None
    with tempfile.TemporaryDirectory() as profile:
        driver = chromium(profile)
        try:
            browser = Browser(driver)
            told = {"control": bad(browser)}
            for page in map(pathlib.Path, sys.argv[2:]):
                told[page.stem] = look(browser, page, folder)
        finally:
            driver.quit()
    print(json.dumps(told))


main()
