"""The content words of the sample: nouns, adjectives and verbs, one to a line, in English and German.

`lexicon.py` reads these tables. A column "-" is empty, an underscore stands for a space, and kinds are
the semantic classes that keep sentences sensible: a verb names the kinds of its subject and objects, an
adjective the kinds that it can describe. Words are chosen so that each English form has one German
meaning: no noun has a plural equal to its singular, and no two nouns share a form.
"""

# english plural german gender genitive german_plural kind
# The genitive column is the singular ending; "weak" nouns take the plural's form in every case but one.
# Mass nouns have no plural. Places add: English preposition, German preposition, German "to".
NOUNS = """
man men Mann m es Männer person
boy boys Junge m weak Jungen person
father fathers Vater m s Väter person
brother brothers Bruder m s Brüder person
son sons Sohn m es Söhne person
uncle uncles Onkel m s Onkel person
grandfather grandfathers Großvater m s Großväter person
teacher teachers Lehrer m s Lehrer person
doctor doctors Arzt m es Ärzte person
student students Student m weak Studenten person
neighbour neighbours Nachbar m weak Nachbarn person
friend friends Freund m es Freunde person
baker bakers Bäcker m s Bäcker person
farmer farmers Bauer m weak Bauern person
artist artists Künstler m s Künstler person
colleague colleagues Kollege m weak Kollegen person
policeman policemen Polizist m weak Polizisten person
woman women Frau f - Frauen person
mother mothers Mutter f - Mütter person
sister sisters Schwester f - Schwestern person
daughter daughters Tochter f - Töchter person
grandmother grandmothers Großmutter f - Großmütter person
nurse nurses Krankenschwester f - Krankenschwestern person
child children Kind n es Kinder person
girl girls Mädchen n s Mädchen person
dog dogs Hund m es Hunde pet
cat cats Katze f - Katzen pet
horse horses Pferd n es Pferde pet
rabbit rabbits Hase m weak Hasen pet
bird birds Vogel m s Vögel pet
bear bears Bär m weak Bären beast
lion lions Löwe m weak Löwen beast
monkey monkeys Affe m weak Affen beast
elephant elephants Elefant m weak Elefanten beast
wolf wolves Wolf m es Wölfe beast
apple apples Apfel m s Äpfel fruit
orange oranges Orange f - Orangen fruit
egg eggs Ei n s Eier dish
potato potatoes Kartoffel f - Kartoffeln dish
soup soups Suppe f - Suppen dish
rice - Reis m es - dish
meat - Fleisch n es - dish
cake cakes Kuchen m s Kuchen baked
bread - Brot n es - baked
water - Wasser n s - drink
milk - Milch f - - drink
coffee - Kaffee m s - drink
tea - Tee m s - drink
juice - Saft m es - drink
book books Buch n es Bücher text
letter letters Brief m es Briefe text
newspaper newspapers Zeitung f - Zeitungen text
poem poems Gedicht n s Gedichte text
story stories Geschichte f - Geschichten tale
joke jokes Witz m es Witze tale
coat coats Mantel m s Mäntel clothing
hat hats Hut m es Hüte clothing
shirt shirts Hemd n es Hemden clothing
dress dresses Kleid n es Kleider clothing
key keys Schlüssel m s Schlüssel thing
umbrella umbrellas Regenschirm m s Regenschirme thing
camera cameras Kamera f - Kameras thing
picture pictures Bild n es Bilder thing
knife knives Messer n s Messer thing
bottle bottles Flasche f - Flaschen thing
cup cups Tasse f - Tassen thing
present presents Geschenk n s Geschenke thing
flower flowers Blume f - Blumen thing
ball balls Ball m s Bälle thing
clock clocks Uhr f - Uhren thing
car cars Auto n s Autos vehicle
bicycle bicycles Fahrrad n es Fahrräder vehicle
bus buses Bus m ses Busse transport
train trains Zug m es Züge transport
boat boats Boot n es Boote vehicle
door doors Tür f - Türen opening
window windows Fenster n s Fenster opening
table tables Tisch m es Tische surface on auf auf
chair chairs Stuhl m s Stühle surface on auf auf
bed beds Bett n es Betten surface on auf auf
bench benches Bank f - Bänke surface on auf auf
floor - Boden m s - floor on auf auf
box boxes Kiste f - Kisten container in in in
bag bags Tasche f - Taschen container in in in
cupboard cupboards Schrank m es Schränke container in in in
film films Film m s Filme event
concert concerts Konzert n s Konzerte event
game games Spiel n s Spiele event
exam exams Prüfung f - Prüfungen event
conversation conversations Gespräch n s Gespräche event
storm - Sturm m s - weather
rain - Regen m s - weather
idea ideas Idee f - Ideen abstract
problem problems Problem n s Probleme abstract
question questions Frage f - Fragen abstract
answer answers Antwort f - Antworten abstract
plan plans Plan m s Pläne abstract
mistake mistakes Fehler m s Fehler abstract
kitchen kitchens Küche f - Küchen room in in in
room rooms Zimmer n s Zimmer room in in in
office offices Büro n s Büros room in in in
house houses Haus n es Häuser building in in in
school schools Schule f - Schulen building in in in
library libraries Bibliothek f - Bibliotheken building in in in
museum museums Museum n s Museen building in in in
restaurant restaurants Restaurant n s Restaurants building in in in
hotel hotels Hotel n s Hotels building in in in
church churches Kirche f - Kirchen building in in in
hospital hospitals Krankenhaus n es Krankenhäuser building in in in
garden gardens Garten m s Gärten outdoors in in in
park parks Park m s Parks outdoors in in in
forest forests Wald m es Wälder outdoors in in in
city cities Stadt f - Städte town in in in
village villages Dorf n es Dörfer town in in in
island islands Insel f - Inseln town on auf auf
station stations Bahnhof m s Bahnhöfe site at an zu
airport airports Flughafen m s Flughäfen site at an zu
market markets Markt m es Märkte site at auf auf
street streets Straße f - Straßen site on auf auf
bridge bridges Brücke f - Brücken site on auf auf
mountain mountains Berg m es Berge site on auf auf
beach beaches Strand m es Strände site at an an
river rivers Fluss m es Flüsse shore at an an
lake lakes See m s Seen shore at an an
sea - Meer n es - shore at an an
"""

# english german attributive_stem english_comparative german_comparative kinds
ADJECTIVES = """
old alt alt older älter person,pet,text,clothing,thing,vehicle,opening,surface,building,town
young jung jung younger jünger person,pet,beast
big groß groß bigger größer pet,beast,fruit,thing,vehicle,surface,room,building,outdoors,town
small klein klein smaller kleiner person,pet,fruit,thing,vehicle,opening,surface,container,room,building,town
tall groß groß taller größer person
new neu neu newer neuer text,clothing,thing,vehicle,opening,surface,container,building,abstract
beautiful schön schön more_beautiful schöner pet,clothing,building,outdoors,town,shore,site
expensive teuer teur more_expensive teurer clothing,thing,vehicle,drink,baked,container
cheap billig billig cheaper billiger clothing,thing,vehicle,drink,fruit,container
heavy schwer schwer heavier schwerer thing,vehicle,surface,container,opening
fast schnell schnell faster schneller vehicle,transport,pet
strong stark stark stronger stärker person,beast
clever klug klug cleverer klüger person,pet,beast
friendly freundlich freundlich friendlier freundlicher person
happy glücklich glücklich happier glücklicher person
sad traurig traurig sadder trauriger person,tale
poor arm arm poorer ärmer person
tired müde müd - - person,pet,beast
sick krank krank - - person,pet,beast
hungry hungrig hungrig - - person,pet,beast
famous berühmt berühmt - - person
lazy faul faul lazier fauler person,pet
wild wild wild - - beast,horse,cat,rabbit
dangerous gefährlich gefährlich more_dangerous gefährlicher beast,dog,street,mountain
red rot rot - - clothing,thing,vehicle,fruit,opening
blue blau blau - - clothing,thing,vehicle,opening,shore
green grün grün - - clothing,thing,vehicle,opening
yellow gelb gelb - - clothing,thing,vehicle,fruit
black schwarz schwarz - - clothing,thing,vehicle,pet
white weiß weiß - - clothing,thing,vehicle,pet,opening
sweet süß süß sweeter süßer fruit,baked
hot heiß heiß hotter heißer dish,drink
cold kalt kalt colder kälter dish,drink,shore,weather
delicious lecker lecker - - fruit,dish,baked,drink
clean sauber sauber cleaner sauberer room,building,clothing,shore,container
dark dunkel dunkl darker dunkler room,outdoors
empty leer leer - - container,room,building
long lang lang longer länger text,tale,event,street,bridge,river
short kurz kurz shorter kürzer text,tale,event
difficult schwierig schwierig more_difficult schwieriger text,event,abstract
easy einfach einfach easier einfacher text,event,abstract
important wichtig wichtig more_important wichtiger event,abstract
interesting interessant interessant more_interesting interessanter text,tale,event,abstract
good gut gut better besser text,tale,event,abstract,dish
"""

# english past participle german third participle auxiliary frame subjects objects place manners extras
# english: "pick+up" lets a pronoun between its parts; "look_for" does not.
# german: "|" marks a prefix that separates.
# frame: "-", "acc", "dat", "dat,acc" or a preposition on each side, "for=auf,acc".
# place: "state" takes no adverbials at all, "-" a time but no place; "any", "shops" and other settings may
# have a place, a direction ("goal") or position ("seat") must be there.
VERBS = """
sleep slept slept schlafen schläft geschlafen haben - animate - beds - -
work worked worked arbeiten arbeitet gearbeitet haben - person - any slowly,carefully with
laugh laughed laughed lachen lacht gelacht haben - person - any loudly,quietly with
cry cried cried weinen weint geweint haben - person - any loudly,quietly -
dance danced danced tanzen tanzt getanzt haben - person - any happily,slowly with
wait waited waited warten wartet gewartet haben - person - any patiently with
play played played spielen spielt gespielt haben - person,pet - any happily,quietly -
stay stayed stayed bleiben bleibt geblieben sein - person - any - with
live lived lived wohnen wohnt gewohnt haben - person - home - with
sit sat sat sitzen sitzt gesessen haben - person - seat quietly with
lie lay lain liegen liegt gelegen haben - text,clothing,thing,pet - rest - -
swim swam swum schwimmen schwimmt geschwommen sein - person,pet - shore quickly,slowly with
get_up got got auf|stehen steht aufgestanden sein - person - - slowly,quickly -
wake_up woke woken auf|wachen wacht aufgewacht sein - animate - - slowly -
fall_asleep fell fallen ein|schlafen schläft eingeschlafen sein - animate - beds quickly -
arrive arrived arrived an|kommen kommt angekommen sein - person,transport - any - with
come_back came come zurück|kommen kommt zurückgekommen sein - person - source slowly,quickly with
come came come kommen kommt gekommen sein - person - source - with
go went gone gehen geht gegangen sein - person - goal slowly,quickly with
run ran run laufen läuft gelaufen sein - animate - path quickly -
drive drove driven fahren fährt gefahren sein - person - ride slowly,carefully with
travel travelled travelled reisen reist gereist sein - person - far - with
see saw seen sehen sieht gesehen haben acc animate person,pet,beast,transport,site any - -
hear heard heard hören hört gehört haben acc person,pet person,pet,beast,transport any - -
watch watched watched beobachten beobachtet beobachtet haben acc animate person,pet,beast any quietly -
love loved loved lieben liebt geliebt haben acc person person,pet,tale state - -
know knew known kennen kennt gekannt haben acc person person,town,tale state - -
like liked liked mögen mag gemocht haben acc person person,pet,food,drink,clothing state - -
admire admired admired bewundern bewundert bewundert haben acc person person,building,site,shore state - -
miss missed missed vermissen vermisst vermisst haben acc person person,pet,town state - -
need needed needed brauchen braucht gebraucht haben acc person thing,clothing,vehicle,container state - -
have had had haben hat gehabt haben acc person pet,thing,vehicle,abstract state - -
understand understood understood verstehen versteht verstanden haben acc person person,text,abstract state - -
take took taken nehmen nimmt genommen haben acc person transport - - with
discuss discussed discussed besprechen bespricht besprochen haben acc person problem,question,plan,idea - - -
visit visited visited besuchen besucht besucht haben acc person person,building,town - - with
meet met met treffen trifft getroffen haben acc person person any - -
invite invited invited ein|laden lädt eingeladen haben acc person person - - -
call called called an|rufen ruft angerufen haben acc person person - - -
pick+up picked picked ab|holen holt abgeholt haben acc person person any - -
greet greeted greeted grüßen grüßt gegrüßt haben acc person person any happily,quietly -
kiss kissed kissed küssen küsst geküsst haben acc person person any - -
buy bought bought kaufen kauft gekauft haben acc person food,drink,text,clothing,thing,vehicle shops - for
sell sold sold verkaufen verkauft verkauft haben acc person food,drink,clothing,thing,vehicle shops - -
eat ate eaten essen isst gegessen haben acc person food meals slowly,quickly -
eat ate eaten fressen frisst gefressen haben acc pet,beast meat,bread,apple,potato meals slowly,quickly -
drink drank drunk trinken trinkt getrunken haben acc person drink meals slowly,quickly -
order ordered ordered bestellen bestellt bestellt haben acc person food,drink meals - for
cook cooked cooked kochen kocht gekocht haben acc person dish meals carefully for
bake baked baked backen backt gebacken haben acc person baked meals - for
read read read lesen liest gelesen haben acc person text any slowly,quietly -
write wrote written schreiben schreibt geschrieben haben acc person letter,poem,story,book any slowly for
paint painted painted malen malt gemalt haben acc person person,pet,building,outdoors,shore any carefully for
look_for looked looked suchen sucht gesucht haben acc person person,pet,thing,clothing any patiently -
find found found finden findet gefunden haben acc person pet,thing,clothing,text any - -
lose lost lost verlieren verliert verloren haben acc person thing,clothing,container any - -
forget forgot forgotten vergessen vergisst vergessen haben acc person thing,clothing,text,abstract - - -
carry carried carried tragen trägt getragen haben acc person thing,container,surface - slowly,carefully for
wear wore worn tragen trägt getragen haben acc person clothing any - -
wash washed washed waschen wäscht gewaschen haben acc person pet,fruit,clothing,vehicle - carefully -
clean cleaned cleaned putzen putzt geputzt haben acc person opening,room,surface - quickly,carefully -
repair repaired repaired reparieren repariert repariert haben acc person vehicle,surface,opening outside - for
build built built bauen baut gebaut haben acc person building,vehicle - slowly for
open opened opened öffnen öffnet geöffnet haben acc person opening,container - slowly,carefully -
close closed closed schließen schließt geschlossen haben acc person opening,container - slowly,quietly -
tidy+up tidied tidied auf|räumen räumt aufgeräumt haben acc person room,building - slowly,quickly -
throw+away threw thrown weg|werfen wirft weggeworfen haben acc person text,clothing,food - - -
put+on put put an|ziehen zieht angezogen haben acc person clothing - slowly,quickly -
put put put legen legt gelegt haben acc person text,clothing,thing onto carefully,quietly -
look_at looked looked an|schauen schaut angeschaut haben acc person text,clothing,thing,vehicle - patiently -
use used used benutzen benutzt benutzt haben acc person thing,vehicle,transport - carefully -
feed fed fed füttern füttert gefüttert haben acc person pet,beast outside patiently,carefully -
help helped helped helfen hilft geholfen haben dat person person any patiently -
thank thanked thanked danken dankt gedankt haben dat person person - happily -
follow followed followed folgen folgt gefolgt sein dat animate person,pet any slowly,quietly -
answer answered answered antworten antwortet geantwortet haben dat person person - quietly,patiently -
trust trusted trusted vertrauen vertraut vertraut haben dat person person state - -
congratulate congratulated congratulated gratulieren gratuliert gratuliert haben dat person person - happily -
listen_to listened listened zu|hören hört zugehört haben dat person person any patiently -
belong_to belonged belonged gehören gehört gehört haben dat text,clothing,thing,vehicle person state - -
give gave given geben gibt gegeben haben dat,acc person person/food,text,thing,clothing,drink any - -
show showed shown zeigen zeigt gezeigt haben dat,acc person person/text,thing,clothing,pet - patiently -
send sent sent schicken schickt geschickt haben dat,acc person person/text,thing - - -
bring brought brought bringen bringt gebracht haben dat,acc person person/food,drink,thing,text - quickly -
lend lent lent leihen leiht geliehen haben dat,acc person person/text,thing,vehicle,clothing - - -
tell told told erzählen erzählt erzählt haben dat,acc person person/tale any loudly,quietly -
offer offered offered an|bieten bietet angeboten haben dat,acc person person/food,drink meals - -
wait waited waited warten wartet gewartet haben for=auf,acc person person,transport any patiently -
think thought thought denken denkt gedacht haben of=an,acc person person,abstract,event - - -
talk talked talked sprechen spricht gesprochen haben about=über,acc person person,text,event,abstract any - -
dream dreamed dreamed träumen träumt geträumt haben of=von,dat person town,vehicle,pet,person - - -
laugh laughed laughed lachen lacht gelacht haben at=über,acc person tale,mistake any loudly,quietly -
speak spoke spoken sprechen spricht gesprochen haben with=mit,dat person person any quietly,loudly -
play played played spielen spielt gespielt haben with=mit,dat person pet,ball any happily,quietly -
"""

# Verbs that take a clause: a "that" clause, a "whether" clause, or an infinitive with "to".
CLAUSE_VERBS = """
say said said sagen sagt gesagt haben that
think thought thought denken denkt gedacht haben that
believe believed believed glauben glaubt geglaubt haben that
hope hoped hoped hoffen hofft gehofft haben that
know knew known wissen weiß gewusst haben that
ask asked asked fragen fragt gefragt haben whether
try tried tried versuchen versucht versucht haben to
begin began begun beginnen beginnt begonnen haben to
"""
